"""`python -m worker.reindex`: compares users' vectors with their prompts, and has workers rebuild what differs."""

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
from shared.search import missing_vectors, vector_log
from shared.search.consistency_check import Differences, find_differences, is_by_another, lacks_vector
from shared.search.faiss.segment_storage import SegmentStorage
from shared.search.index_lock import index_lock
from shared.settings import SettingsError, load_settings

#: How many users workers reindex at the same time.
MAX_ACTIVE_USERS = 4
POLL_SECONDS = 1.0
#: A message that no worker has received after this time is sent again, with a warning.
RESEND_SECONDS = 30.0


@dataclass
class _Task:
    """A user who is being reindexed."""

    user_id: int
    version: int  #: of the user's index, before
    vectors: int  #: by the current embedder, at the last count
    sent_at: float = float("-inf")


class Reindexing:
    """Sends users to workers for reindexing, and follows their progress."""

    def __init__(self, sessions: Sessions, queue: Queue, embedder: Embedder) -> None:
        self._sessions = sessions
        self._queue = queue
        self._embedder = embedder.name
        self._queued: deque[int] = deque()
        self._active: list[_Task] = []

    def start(self, user_ids: list[int]) -> None:
        self._queued.extend(user_ids)

    @property
    def is_done(self) -> bool:
        return not self._queued and not self._active

    def poll(self) -> int:
        """Send what is next. Returns how many vectors were added since the last call."""
        while self._queued and len(self._active) < MAX_ACTIVE_USERS:
            user_id = self._queued.popleft()
            with self._sessions() as session:
                version = vector_log.fetch_state(session.connection(), user_id).version
            self._active.append(_Task(user_id, version, self._count(user_id)))
        added = 0
        for task in list(self._active):
            vectors = self._count(task.user_id)
            added, task.vectors = added + max(0, vectors - task.vectors), vectors
            if self._is_finished(task):
                self._active.remove(task)
            else:
                self._send(task)
        return added

    def _send(self, task: _Task) -> None:
        """Send a message for the user, unless a worker is busy with the user or one was sent recently."""
        with index_lock(self._sessions, task.user_id) as is_idle:
            if not is_idle:
                return
        waited = time.monotonic() - task.sent_at
        if waited < RESEND_SECONDS and self._queue.length() != 0:
            return
        if RESEND_SECONDS < waited < float("inf"):
            click.echo("\nNo worker has started on this. Is one running?", err=True)
        task.sent_at = time.monotonic()
        self._queue.request_reindex(task.user_id)

    def _count(self, user_id: int) -> int:
        row = VectorLogEntry
        wanted = (row.user_id == user_id, row.embedder == self._embedder)
        with self._sessions() as session:
            return session.scalar(select(func.count()).select_from(row).where(*wanted)) or 0

    def _is_finished(self, task: _Task) -> bool:
        with self._sessions() as session:
            state = vector_log.fetch_state(session.connection(), task.user_id)
            if state.embedder != self._embedder or state.version == task.version:
                return False
            left = (is_by_another(task.user_id, self._embedder), lacks_vector(task.user_id, self._embedder))
            return not any(session.scalar(select(exists().where(each))) for each in left)


@click.command()
@click.option("--check", is_flag=True, help="Only report what differs; exit with 1 if anything does.")
@click.option("--user", "username", help="Only this user.")
@click.option("--all", "rebuild_all", is_flag=True, help="Rebuild the indexes of users without differences, too.")
def main(check: bool, username: str | None, rebuild_all: bool) -> None:
    """Give all prompts vectors by the embedder that EMBEDDER names.

    Reports differences between the prompts and what is derived from them (vectors, segments), and has the workers
    rebuild that. Prompts that wait for their vector are reported, too: workers add it when the embedder works.
    Searches continue meanwhile, with the old vectors while PREVIOUS_EMBEDDER names their embedder.
    It can be interrupted at any time; the next run continues where this one stopped.
    """
    try:
        settings = load_settings()
        embedder = make_embedders(settings).current
        storage = SegmentStorage(settings.segments_url)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    sessions = make_sessions(make_engine(settings, application_name="promptwire-reindex"))
    users = _users(sessions, username)
    found = _compare(sessions, storage, embedder, users)
    if check:
        sys.exit(1 if any(found.values()) else 0)
    _retry_refused(sessions, found)
    wanted = [user_id for user_id, differences in found.items() if differences or rebuild_all]
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
    left = _compare(sessions, storage, embedder, {user_id: users[user_id] for user_id in wanted})
    sys.exit(1 if any(left.values()) else 0)


def _retry_refused(sessions: Sessions, found: dict[int, Differences]) -> None:
    """Have workers try the refused texts once more: perhaps the embedder accepts them by now."""
    count = sum(len(differences.refused) for differences in found.values())
    if not count:
        return
    for user_id, differences in found.items():
        if differences.refused:
            with sessions.begin() as session:
                missing_vectors.retry_refused(session, user_id)
    click.echo(f"{count} prompts that the embedder refused will be tried again by the workers.")


def _users(sessions: Sessions, username: str | None) -> dict[int, str]:
    with sessions() as session:
        query = select(User.id, User.username).order_by(User.id)
        if username is not None:
            query = query.where(User.username == username)
        users = {row.id: row.username for row in session.execute(query)}
    if username is not None and not users:
        raise click.ClickException(f"User {username} does not exist.")
    return users


def _compare(
    sessions: Sessions, storage: SegmentStorage, embedder: Embedder, users: dict[int, str]
) -> dict[int, Differences]:
    """Print the differences, one line per user, and return them by user id."""
    found = {}
    with click.progressbar(users.items(), label="Comparing", length=len(users)) as bar:
        for user_id, _ in bar:
            with long_snapshot(sessions) as connection:
                found[user_id] = find_differences(connection, storage, user_id, embedder)
    for user_id, differences in found.items():
        if _describe(differences):
            click.echo(f"{users[user_id]}: {_describe(differences)}")
    different = sum(map(bool, found.values()))
    click.echo(f"{len(users)} users compared, {different} with differences.")
    return found


def _describe(differences: Differences) -> str:
    counts = {
        "prompts without a vector": differences.missing,
        "vectors without a prompt": differences.orphans,
        "damaged vectors": differences.damaged,
        "vectors by another embedder": differences.old,
        "bad segments": differences.segments,
        "prompts that wait for their vector": differences.due,
        "prompts that the embedder refuses": differences.refused,
    }
    parts = [f"{len(ids)} {what}" for what, ids in counts.items() if ids]
    if differences.embedder is not None:
        parts.insert(0, f"searches compare vectors by {differences.embedder}")
    return ", ".join(parts)


if __name__ == "__main__":
    run(main)
