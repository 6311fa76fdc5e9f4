"""Compares what is derived from prompts with the prompts, and has workers make it anew: `python -m worker.reindex`."""

import sys
import time
from collections import deque
from dataclasses import dataclass

import click
from sqlalchemy import exists, func, select

from shared.cli_errors import run
from shared.db.engine import Sessions, long_snapshot, make_engine, make_sessions
from shared.db.models import User, VectorLogEntry
from shared.messaging.queue import Queue, make_celery
from shared.messaging.redis import make_redis
from shared.providers import Embedder
from shared.providers.factory import make_embedders
from shared.search import vector_log
from shared.search.consistency_check import Differences, inspect, is_by_another, lacks_vector
from shared.search.faiss.sealing import index_lock
from shared.search.faiss.segment_storage import Segments
from shared.settings import SettingsError, load_settings

#: How many users workers are asked to work on at once.
AT_ONCE = 4
POLL_SECONDS = 1.0
#: A message that nobody took up for so long is sent again, with a warning.
PATIENCE_SECONDS = 30.0


@dataclass
class _Task:
    """A user who is being worked on."""

    user_id: int
    version: int  #: of their index, before
    vectors: int  #: by the current embedder, when it was last counted
    asked_at: float = float("-inf")


class Reindexing:
    """Has workers reindex users, and tells how far they are."""

    def __init__(self, sessions: Sessions, queue: Queue, embedder: Embedder) -> None:
        self._sessions = sessions
        self._queue = queue
        self._embedder = embedder.name
        self._waiting: deque[int] = deque()
        self._active: list[_Task] = []

    def start(self, user_ids: list[int]) -> None:
        self._waiting.extend(user_ids)

    @property
    def is_done(self) -> bool:
        return not self._waiting and not self._active

    def poll(self) -> int:
        """Asks for what is next. Returns how many vectors came to be since the last time."""
        while self._waiting and len(self._active) < AT_ONCE:
            user_id = self._waiting.popleft()
            with self._sessions() as session:
                version = vector_log.state(session.connection(), user_id).version
            self._active.append(_Task(user_id, version, self._count(user_id)))
        made = 0
        for task in list(self._active):
            vectors = self._count(task.user_id)
            made, task.vectors = made + max(0, vectors - task.vectors), vectors
            if self._is_finished(task):
                self._active.remove(task)
            else:
                self._ask(task)
        return made

    def _ask(self, task: _Task) -> None:
        with index_lock(self._sessions, task.user_id) as idle:
            if not idle:
                return
        waited = time.monotonic() - task.asked_at
        if waited < PATIENCE_SECONDS and self._queue.length() != 0:
            return
        if PATIENCE_SECONDS < waited < float("inf"):
            click.echo("\nNo worker has taken this up. Does one run?", err=True)
        task.asked_at = time.monotonic()
        self._queue.request_reindex(task.user_id)

    def _count(self, user_id: int) -> int:
        row = VectorLogEntry
        mine = (row.user_id == user_id, row.embedder == self._embedder)
        with self._sessions() as session:
            return session.scalar(select(func.count()).select_from(row).where(*mine)) or 0

    def _is_finished(self, task: _Task) -> bool:
        with self._sessions() as session:
            state = vector_log.state(session.connection(), task.user_id)
            if state.embedder != self._embedder or state.version == task.version:
                return False
            left = (is_by_another(task.user_id, self._embedder), lacks_vector(task.user_id, self._embedder))
            return not any(session.scalar(select(exists().where(each))) for each in left)


@click.command()
@click.option("--check", is_flag=True, help="Only report what differs; exit with 1 if anything does.")
@click.option("--user", "username", help="Only this user.")
@click.option("--all", "everybody", is_flag=True, help="Make the indexes of users without differences anew, too.")
def main(check: bool, username: str | None, everybody: bool) -> None:
    """Gives all prompts vectors by the embedder that EMBEDDER names.

    Reports what differs between the prompts and what is derived from them (vectors, segments), and has the workers
    make that anew. Searches go on meanwhile, with the old vectors as long as PREVIOUS_EMBEDDER names their embedder.
    It can be broken off at any time; the next run goes on where this one was.
    """
    try:
        settings = load_settings()
        embedder = make_embedders(settings).current
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    sessions = make_sessions(make_engine(settings, application_name="promptwire-reindex"))
    segments = Segments(settings.segments_url)
    users = _users(sessions, username)
    found = _compare(sessions, segments, embedder, users)
    if check:
        sys.exit(1 if any(found.values()) else 0)
    wanted = [user_id for user_id, differences in found.items() if differences or everybody]
    if not wanted:
        click.echo("Nothing to do.")
        return
    reindexing = Reindexing(sessions, Queue(make_celery(settings), make_redis(settings)), embedder)
    reindexing.start(wanted)
    length = sum(len(found[user_id].missing) + len(found[user_id].damaged) for user_id in wanted)
    with click.progressbar(length=length, label="Embedding") as bar:
        while not reindexing.is_done:
            bar.update(reindexing.poll())
            time.sleep(0 if reindexing.is_done else POLL_SECONDS)
    left = _compare(sessions, segments, embedder, {user_id: users[user_id] for user_id in wanted})
    sys.exit(1 if any(left.values()) else 0)


def _users(sessions: Sessions, username: str | None) -> dict[int, str]:
    with sessions() as session:
        query = select(User.id, User.username).order_by(User.id)
        if username is not None:
            query = query.where(User.username == username)
        users = {row.id: row.username for row in session.execute(query)}
    if username is not None and not users:
        raise click.ClickException(f"There is no user {username}.")
    return users


def _compare(
    sessions: Sessions, segments: Segments, embedder: Embedder, users: dict[int, str]
) -> dict[int, Differences]:
    """Prints what differs, a line a user, and returns it by the users' ids."""
    found = {}
    with click.progressbar(users.items(), label="Comparing", length=len(users)) as bar:
        for user_id, _ in bar:
            with long_snapshot(sessions) as connection:
                found[user_id] = inspect(connection, segments, user_id, embedder)
    for user_id, differences in found.items():
        if differences:
            click.echo(f"{users[user_id]}: {_in_words(differences)}")
    different = sum(map(bool, found.values()))
    click.echo(f"{len(users)} users compared, {different} with differences.")
    return found


def _in_words(differences: Differences) -> str:
    counts = {
        "prompts without a vector": differences.missing,
        "vectors without a prompt": differences.orphans,
        "damaged vectors": differences.damaged,
        "vectors by another embedder": differences.old,
        "bad segments": differences.segments,
    }
    parts = [f"{len(ids)} {what}" for what, ids in counts.items() if ids]
    if differences.embedder is not None:
        parts.insert(0, f"searches compare vectors by {differences.embedder}")
    return ", ".join(parts)


if __name__ == "__main__":
    run(main)
