"""Prompts that misbehave, and messages that nobody of ours sent."""

import random
from pathlib import Path
from tempfile import TemporaryDirectory

import redis
from kombu import Connection

from shared.messaging.queue import PROCESS_PROMPTS, QUEUE, make_celery
from shared.settings import Settings
from tests.faults.cluster import Cluster
from tests.faults.outcome import Outcome
from tests.faults.run import under_load
from tests.faults.scale import Scale

_GARBAGE = (b"", b"{", b"[]", b"null", b"\xff\x00", b'{"body": 1}', b'{"body": "e30=", "properties": {}, "headers": 7}')
_BROKEN: tuple[tuple[object, dict[str, object]], ...] = (
    ([[[1]], {}, {}], {"task": PROCESS_PROMPTS}),
    ([], {"task": PROCESS_PROMPTS, "id": "1"}),
    (7, {"task": PROCESS_PROMPTS, "id": "1"}),
    (None, {"task": PROCESS_PROMPTS, "id": "1"}),
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
)


def poison(cluster: Cluster, scale: Scale) -> Outcome:
    """Prompts that kill their worker, hang, freeze it past the hard limit, or fail twice; others go on meanwhile."""
    with TemporaryDirectory() as folder, under_load(cluster, "poison prompts", members=2, pause=0.2) as run:
        member, submitted = run.members[0], []
        for i in range(scale.poisons):
            doomed = [member.submit("die"), member.submit("hang")]
            submitted += doomed
            submitted.append(member.submit(f"fail-twice {Path(folder) / f'fail-{i}'}"))
            submitted.append(member.submit(f"freeze-once {Path(folder) / f'freeze-{i}'}"))
            run.witness.limit_attempts(doomed, scale.poison_attempts)
            run.outcome.faults += 4
            member.meant_to_fail.update(doomed)
        run.expect(lambda: run.witness.have_ended(submitted), 600, "the end of the poison")
    return run.outcome


def forged_messages(cluster: Cluster, scale: Scale) -> Outcome:
    """Messages of any id in any order, of wrong types, of other tasks, pickled, and no messages at all."""
    chance = random.Random()
    with under_load(cluster, "forged messages", members=4) as run:
        run.expect(lambda: len(run.members[0].accepted) > 10, 20, "ids to forge")
        with _Forger(cluster.settings, chance) as forger:
            for _ in range(scale.forgeries):
                forger.forge([i for member in run.members for i in member.accepted])
                run.outcome.faults += 1
        run.consuming_again()
    return run.outcome


class _Forger:
    """Writes to the broker as somebody with its password could."""

    def __init__(self, settings: Settings, chance: random.Random) -> None:
        self._url = settings.redis_url.get_secret_value()
        self._celery = make_celery(settings)
        self._chance = chance

    def __enter__(self) -> "_Forger":
        self._redis = redis.Redis.from_url(self._url)
        self._connection = Connection(self._url)
        return self

    def __exit__(self, *error: object) -> None:
        self._redis.close()
        self._connection.release()
        self._celery.close()

    def forge(self, ids: list[int]) -> None:
        ways = (self._repeat, self._invent, self._mistype, self._name, self._pickle, self._litter, self._break)
        self._chance.choice(ways)(ids)

    def _repeat(self, ids: list[int]) -> None:
        self._celery.send_task(PROCESS_PROMPTS, args=[self._chance.choices(ids, k=self._chance.randint(1, 20))])

    def _invent(self, ids: list[int]) -> None:
        self._celery.send_task(PROCESS_PROMPTS, args=[[self._chance.randint(1, 2**63 - 1) for _ in range(5)]])

    def _mistype(self, ids: list[int]) -> None:
        self._celery.send_task(PROCESS_PROMPTS, args=self._chance.choice(_WRONG_ARGUMENTS))

    def _name(self, ids: list[int]) -> None:
        self._celery.send_task("os.system", args=["exit 1"])

    def _pickle(self, ids: list[int]) -> None:
        with self._connection.SimpleQueue(QUEUE) as queue:
            queue.put({"task": PROCESS_PROMPTS, "args": [ids[:1]]}, serializer="pickle")

    def _litter(self, ids: list[int]) -> None:
        self._redis.lpush(QUEUE, self._chance.choice(_GARBAGE))

    def _break(self, ids: list[int]) -> None:
        """A message on which Celery's own reading of it raises."""
        body, headers = self._chance.choice(_BROKEN)
        self._connection.Producer().publish(body, routing_key=QUEUE, headers=headers, serializer="json")
