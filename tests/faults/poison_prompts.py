"""Prompts that break their worker, and forged queue messages."""

import random
from pathlib import Path
from tempfile import TemporaryDirectory

import redis
from kombu import Connection

from shared.db.models import DEFAULT_ROUTE
from shared.messaging.queue import ANSWER_PROMPTS, PROCESS_PROMPTS, QUEUE, make_celery, queue_name
from shared.settings import Settings
from tests.faults.cluster import Cluster
from tests.faults.outcome import Outcome
from tests.faults.run import under_load
from tests.faults.scale import Scale

_MALFORMED_ENTRIES = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\x00",
    b'{"body": 1}',
    b'{"body": "e30=", "properties": {}, "headers": 7}',
)
_UNREADABLE_MESSAGES: tuple[tuple[object, dict[str, object]], ...] = (
    ([[[1]], {}, {}], {"task": PROCESS_PROMPTS}),
    ([], {"task": PROCESS_PROMPTS, "id": "1"}),
    (7, {"task": PROCESS_PROMPTS, "id": "1"}),
    (None, {"task": PROCESS_PROMPTS, "id": "1"}),
    ([[DEFAULT_ROUTE, 1], {}, {}], {"task": ANSWER_PROMPTS}),
    (7, {"task": ANSWER_PROMPTS, "id": "1"}),
    ([[[1]], {}, {}], {"task": [], "id": "1"}),
    ([[[1]], {}, {}], {"task": "unknown"}),
)
_WRONG_ARGUMENTS: tuple[list[object], ...] = (
    [["1"]],
    [None],
    [[-1]],
    [[0]],
    [[2**63]],
    [[1.5]],
    [[True]],
    [[[1]]],
    [{"1": 1}],
    [],
    [[1], [2]],
    ["no such route", 1],
    [[DEFAULT_ROUTE], 1],
    [DEFAULT_ROUTE, 0],
    [DEFAULT_ROUTE, -1],
    [DEFAULT_ROUTE, 1.5],
    [DEFAULT_ROUTE, True],
    [DEFAULT_ROUTE, "1"],
    [DEFAULT_ROUTE],
)
_QUEUES = (QUEUE, queue_name(DEFAULT_ROUTE))


def poison(cluster: Cluster, scale: Scale) -> Outcome:
    """Submit prompts that kill their worker, hang, freeze it past the hard limit, or fail twice, among normal ones."""
    with TemporaryDirectory() as folder, under_load(cluster, "poison prompts", users=2, pause=0.2) as run:
        user, submitted = run.users[0], []
        for i in range(scale.poisons):
            doomed = [user.submit("die"), user.submit("hang")]
            submitted += doomed
            submitted.append(user.submit(f"fail-twice {Path(folder) / f'fail-{i}'}"))
            submitted.append(user.submit(f"freeze-once {Path(folder) / f'freeze-{i}'}"))
            run.recorder.limit_attempts(doomed, scale.poison_attempts)
            run.outcome.faults += 4
            user.expected_to_fail.update(doomed)
        run.expect(lambda: run.recorder.are_finished(submitted), 600, "the end of the poison prompts")
    return run.outcome


def forged_messages(cluster: Cluster, scale: Scale) -> Outcome:
    """Send surplus wake-ups, ids in any order, wrong types, other tasks, pickled and malformed messages."""
    rng = random.Random()
    with under_load(cluster, "forged messages", users=4) as run:
        run.expect(lambda: len(run.users[0].accepted) > 10, 20, "ids to forge")
        with _Forger(cluster.settings, rng) as forger:
            for _ in range(scale.forgeries):
                forger.forge([i for user in run.users for i in user.accepted])
                run.outcome.faults += 1
        run.expect_consuming()
    return run.outcome


class _Forger:
    """Writes to the broker, as an attacker with its password could."""

    def __init__(self, settings: Settings, rng: random.Random) -> None:
        self._url = settings.redis_url.get_secret_value()
        self._celery = make_celery(settings)
        self._chance = rng

    def __enter__(self) -> "_Forger":
        self._redis = redis.Redis.from_url(self._url)
        self._connection = Connection(self._url)
        return self

    def __exit__(self, *error: object) -> None:
        self._redis.close()
        self._connection.release()
        self._celery.close()

    def forge(self, ids: list[int]) -> None:
        ways = (
            self._send_wake_ups,
            self._send_known_ids,
            self._send_random_ids,
            self._send_wrong_arguments,
            self._send_unknown_task,
            self._send_pickled,
            self._push_malformed,
            self._send_unreadable,
        )
        self._chance.choice(ways)(ids)

    def _send_wake_ups(self, ids: list[int]) -> None:
        self._celery.send_task(ANSWER_PROMPTS, args=[DEFAULT_ROUTE, self._chance.choice((1, 7, 100, 2**70))])

    def _send_known_ids(self, ids: list[int]) -> None:
        self._celery.send_task(PROCESS_PROMPTS, args=[self._chance.choices(ids, k=self._chance.randint(1, 20))])

    def _send_random_ids(self, ids: list[int]) -> None:
        self._celery.send_task(PROCESS_PROMPTS, args=[[self._chance.randint(1, 2**63 - 1) for _ in range(5)]])

    def _send_wrong_arguments(self, ids: list[int]) -> None:
        task = self._chance.choice((PROCESS_PROMPTS, ANSWER_PROMPTS))
        self._celery.send_task(task, args=self._chance.choice(_WRONG_ARGUMENTS))

    def _send_unknown_task(self, ids: list[int]) -> None:
        self._celery.send_task("os.system", args=["exit 1"])

    def _send_pickled(self, ids: list[int]) -> None:
        with self._connection.SimpleQueue(self._chance.choice(_QUEUES)) as queue:
            queue.put({"task": PROCESS_PROMPTS, "args": [ids[:1]]}, serializer="pickle")

    def _push_malformed(self, ids: list[int]) -> None:
        self._redis.lpush(self._chance.choice(_QUEUES), self._chance.choice(_MALFORMED_ENTRIES))

    def _send_unreadable(self, ids: list[int]) -> None:
        """Send a message that makes Celery's own parsing raise."""
        body, headers = self._chance.choice(_UNREADABLE_MESSAGES)
        name = self._chance.choice(_QUEUES)
        self._connection.Producer().publish(body, routing_key=name, headers=headers, serializer="json")
