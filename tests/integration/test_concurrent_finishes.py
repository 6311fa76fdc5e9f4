"""Prompts of one user are finished by many workers while the user submits others."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import func, insert, select

from shared.db.engine import Sessions, make_engine
from shared.db.models import Change, FeedEntry, Prompt, Status
from shared.prompts.claims import CLAIMED
from shared.prompts.completion import Outcome, finish
from shared.settings import Settings
from tests.support import people
from tests.support.servers import MAX_WAIT_SECONDS, Servers

_FINISHES, _WORKERS, _SUBMITTERS = 400, 20, 4
_COMMIT_SECONDS = 0.001


def test_no_finish_is_lost_to_a_deadlock(servers: Servers, settings: Settings, sessions: Sessions) -> None:
    """The submissions' foreign keys lock the user's row, too. Without its advisory lock a tenth of these fails."""
    user = people.make(settings, 1, "busy")[0]
    row = {
        "user_id": user.id,
        "prompt_text": "x",
        "websocket": False,
        "request_id": "r",
        "attempt_limit": 5,
        "due_at": func.now(),
    }
    claimed = row | {"status": Status.PROCESSING, "attempt": 1}
    with sessions.begin() as session:
        ids = [session.scalar(insert(Prompt).values(**claimed).returning(Prompt.id)) for _ in range(_FINISHES)]
    many = make_engine(servers.changed(settings, database_pool_size=_WORKERS), application_name="test", autocommit=True)
    over = threading.Event()

    def complete(prompt_id: int) -> None:
        with many.connect() as connection:
            finish(connection, [Outcome(prompt_id, 1)], Change.COMPLETED, of=CLAIMED)

    def submit() -> None:
        while not over.is_set():
            with sessions.begin() as session:
                session.execute(insert(Prompt).values(**row))
                time.sleep(_COMMIT_SECONDS)

    with ThreadPoolExecutor(_WORKERS + _SUBMITTERS) as pool:
        submitting = [pool.submit(submit) for _ in range(_SUBMITTERS)]
        try:
            list(pool.map(complete, ids))
        finally:
            over.set()
        for each in submitting:
            each.result(MAX_WAIT_SECONDS)
    many.dispose()
    with sessions() as session:
        seqs = session.scalars(select(FeedEntry.seq).where(FeedEntry.user_id == user.id).order_by(FeedEntry.seq)).all()
    assert seqs == list(range(1, _FINISHES + 1))
