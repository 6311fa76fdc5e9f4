"""The webhooks and events of a database, and a deliverer for them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, text

from shared.db.engine import Sessions
from shared.db.models import Change, Status
from shared.prompts import claims, completion
from shared.prompts.answer import Answer
from shared.prompts.completion import Outcome
from tests.support import lifecycle
from tests.support.servers import wait_until
from tests.support.user_queue import UserQueue
from tests.support.webhook_receiver import KEY
from worker.webhooks.deliverer import Deliverer

HOUR = timedelta(hours=1).total_seconds()


class Webhooks:
    """The webhooks in a database, and the events of their users."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.queue = UserQueue(sessions)

    def add(
        self,
        url: str,
        user: str = "alice",
        *,
        key: bytes = KEY,
        events: list[str] | None = None,
        user_id: int | None = None,
    ) -> int:
        """Store a webhook of a user, who is added if necessary and no id is given. Returns the webhook's id."""
        user_id = user_id or self.queue.user(user)
        insert = """
            INSERT INTO webhooks (user_id, url, secret, events) VALUES (:user_id, :url, :key, :events) RETURNING id
        """
        (row,) = self.execute(insert, user_id=user_id, url=url, key=key, events=events)
        return row.id

    def finish(self, count: int = 1, user: str = "alice", *, response_text: str = "An answer.") -> list[int]:
        """Complete new prompts of a user. Returns their ids, in the order of their events."""
        ids = self.queue.submit(*[user] * count)
        with self.sessions.begin() as session:
            claimed = [lifecycle.claim(session, prompt_id) for prompt_id in ids]
            outcomes = [Outcome(claim.id, claim.attempt, answer=Answer(response_text, "test")) for claim in claimed]
            finished = claims.complete(session, outcomes).finished
        return [prompt.prompt_id for prompt in finished]

    def finish_otherwise(self, *statuses: str, user: str = "alice") -> list[int]:
        """Let new prompts of a user fail, or be cancelled. Returns their ids."""
        ids = self.queue.submit(*[user] * len(statuses))
        with self.sessions.begin() as session:
            for prompt_id, status in zip(ids, statuses, strict=True):
                claim = lifecycle.claim(session, prompt_id)
                error = "It broke." if status == "failed" else None
                completion.finish(
                    session, [Outcome(claim.id, claim.attempt, error)], Change(status), of=[Status.PROCESSING]
                )
        return ids

    def add_test_event(self, webhook_id: int) -> int:
        (row,) = self.execute(
            "INSERT INTO webhook_deliveries (webhook_id, event) VALUES (:id, 'webhook.test') RETURNING id",
            id=webhook_id,
        )
        return row.id

    def get(self, webhook_id: int) -> Row[Any]:
        (row,) = self.execute("SELECT * FROM webhooks WHERE id = :id", id=webhook_id)
        return row

    def deliveries(self, webhook_id: int) -> Sequence[Row[Any]]:
        return self.execute("SELECT * FROM webhook_deliveries WHERE webhook_id = :id ORDER BY seq, id", id=webhook_id)

    def attempts(self, webhook_id: int) -> Sequence[Row[Any]]:
        """All attempts, in the order of the events and of time."""
        return self.execute(
            """
            SELECT webhook_attempts.*, seq FROM webhook_attempts JOIN webhook_deliveries ON delivery_id = id
            WHERE webhook_id = :id ORDER BY seq, delivery_id, number
            """,
            id=webhook_id,
        )

    def statuses(self, webhook_id: int) -> list[str]:
        return [row.status for row in self.deliveries(webhook_id)]

    def pending(self) -> int:
        (row,) = self.execute("SELECT count(*) FROM webhook_deliveries WHERE status = 'pending'")
        return row[0]

    def pass_time(self, seconds: float) -> None:
        """Move all times into the past, as if this time had passed."""
        past = "{0} = {0} - make_interval(secs => :seconds)"
        for table, columns in (
            ("webhooks", ("paused_until", "leased_until", "created_at", "previous_secret_expires_at")),
            ("webhook_deliveries", ("next_attempt_at", "created_at")),
        ):
            changes = ", ".join(past.format(column) for column in columns)
            self.execute(f"UPDATE {table} SET {changes}", seconds=seconds)  # noqa: S608

    def end_pause(self, webhook_id: int) -> float:
        """Wait until the endpoint is paused and released, and move the end of the pause to now. Returns its seconds."""

        def pause() -> Row[Any]:
            (row,) = self.execute(
                "SELECT extract(epoch FROM paused_until - now()) AS left FROM webhooks "
                "WHERE id = :id AND leased_by IS NULL",
                id=webhook_id,
            ) or (None,)
            return row

        wait_until(lambda: (row := pause()) is not None and row.left is not None and row.left > 0, what="a pause")
        left = float(pause().left)
        self.pass_time(left)
        return left

    def execute(self, statement: str, **parameters: Any) -> Sequence[Row[Any]]:
        with self.sessions.begin() as session:
            result = session.execute(text(statement), parameters)
            return result.all() if result.returns_rows else []


@contextmanager
def delivering(sessions: Sessions, **options: Any) -> Iterator[Deliverer]:
    """A deliverer, which sends to private addresses unless the options say otherwise."""
    deliverer = Deliverer(sessions, **({"allow_private": True, "poll_seconds": 0.05} | options))
    deliverer.start()
    try:
        yield deliverer
    finally:
        deliverer.stop()
