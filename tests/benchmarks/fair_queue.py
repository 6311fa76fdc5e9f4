"""What submitting, claiming and positions cost, with nothing queued and with 100,000 prompts of one user:
`make benchmark NAME=fair_queue`.
"""

import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, text

from shared.accounts import users
from shared.db.engine import make_engine, make_sessions
from shared.db.models import DEFAULT_ROUTE
from shared.prompts import claims, scheduling, submission
from shared.prompts.submission import NewPrompt, PromptLimits
from tests.benchmarks import published
from tests.support.servers import Servers

USERS = 150
QUEUED = 100_000
_LIMITS = PromptLimits(backlog=1_000)
_MINUTE = timedelta(minutes=1)
_QUEUE_MANY = text("""
    INSERT INTO prompts (user_id, prompt_text, websocket, request_id, due_at, attempt_limit, turn)
    SELECT :user_id, 'Hi', false, 'r', now(), 5, 2 * (i + coalesce((SELECT max(round_default) FROM routes), 0)) + 1
    FROM generate_series(1, :count) AS i
""")


def main() -> None:
    arguments = published.parser(__doc__).parse_args()
    figures: dict[str, Any] = {}
    servers = Servers("benchmark", options=())
    servers.start()
    try:
        with servers.database() as name:
            settings = servers.settings(name)
            with make_sessions(make_engine(settings, application_name="benchmark")).begin() as session:
                ids = [users.create(session, f"user-{i}", "-").id for i in range(USERS + 1)]
            queue = Queue(make_engine(settings, application_name="benchmark", autocommit=True), ids[1:])
            queue.measure()  # warms up
            figures["nothing"] = report("nothing queued", queue.measure())
            queue.execute(_QUEUE_MANY, user_id=ids[0], count=QUEUED)
            measured = queue.measure() | queue.positions(ids[0])
            figures[f"{QUEUED:,}"] = report(f"{QUEUED:,} queued by one user", measured)
    finally:
        servers.stop()
    if arguments.write:
        published.write("fair_queue", figures)


class Queue:
    """The queue in the database, used through one connection."""

    def __init__(self, engine: Engine, user_ids: list[int]) -> None:
        self._engine = engine
        self._user_ids = user_ids

    def execute(self, statement: object, **parameters: object) -> None:
        with self._engine.connect() as connection:
            connection.execute(statement, parameters)  # type: ignore[call-overload]

    def measure(self) -> dict[str, list[float]]:
        """The milliseconds of each call, by what it does. What is submitted is claimed."""
        self.execute(text("VACUUM ANALYZE prompts"))
        return {
            "submit 1": timed(lambda i: self._submit(i, 1), 200),
            "claim 1": timed(lambda _: self._claim(1), 200),
            "submit 100": timed(lambda i: self._submit(i, 100), 40),
            "claim 20": timed(lambda _: self._claim(20), 100),
            "claim 100": timed(lambda _: self._claim(100), 20),
        }

    def positions(self, user_id: int) -> dict[str, list[float]]:
        """The milliseconds that the position of a prompt takes, by how many prompts are before it."""
        query = text("SELECT id FROM prompts WHERE user_id = :user_id AND turn IS NOT NULL ORDER BY turn")
        with self._engine.connect() as connection:
            ids = connection.scalars(query, {"user_id": user_id}).all()

        def position(rank: int) -> Callable[[int], object]:
            def read(_: int) -> object:
                with self._engine.connect() as connection:
                    return scheduling.queue_states(connection, DEFAULT_ROUTE, [ids[rank]])

            return read

        return {f"position {rank:,}": timed(position(rank), 100) for rank in (1, 1_000, 9_000)}

    def _submit(self, first: int, count: int) -> None:
        new = [
            NewPrompt(self._user_ids[(first + i) % USERS], "Hi", websocket=False, request_id="r") for i in range(count)
        ]
        with self._engine.connect() as connection:
            submission.submit(connection, new, grace=_MINUTE, attempt_limit=5, limits=_LIMITS)

    def _claim(self, size: int) -> None:
        with self._engine.connect() as connection:
            claims.claim(connection, DEFAULT_ROUTE, size, _MINUTE)


def timed(call: Callable[[int], object], times: int) -> list[float]:
    taken = []
    for i in range(times):
        started = time.perf_counter()
        call(i)
        taken.append((time.perf_counter() - started) * 1_000)
    return taken


def report(title: str, measured: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Print the quantiles of each call, in ms, and return them."""
    print(title)
    found = {}
    for name, taken in measured.items():
        quantiles = statistics.quantiles(taken, n=100, method="inclusive")
        found[name] = {"p50": round(quantiles[49], 3), "p99": round(quantiles[98], 3)}
        print(f"  {name:<16} p50 {quantiles[49]:6.2f} ms  p99 {quantiles[98]:6.2f} ms")
    return found


if __name__ == "__main__":
    main()
