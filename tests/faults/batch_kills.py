"""API and worker processes are killed while a batch runs."""

import io
import json
import random
from typing import Any
from uuid import uuid4

from tests.faults.cluster import Cluster
from tests.faults.load import LoadUser
from tests.faults.outcome import Outcome
from tests.faults.process_kills import kill_any
from tests.faults.run import Run, under_load
from tests.faults.scale import Scale
from tests.support.batches import URL, jsonl, line


def batch_kills(cluster: Cluster, scale: Scale) -> Outcome:
    """Kill random processes with SIGKILL while a batch is validated, stored, answered and written.

    No line is lost, and none is answered twice.
    """
    rng = random.Random()
    with under_load(cluster, "kill -9 while a batch runs", users=2, browses=False) as run:
        run.may_exit = True
        user = LoadUser(cluster.urls, [], window=1, pause=0)
        try:
            batch = _create(user, scale.batch_lines)
            for _ in range(scale.batch_kills):
                while not kill_any(cluster, rng):
                    run.pause(0.1)
                run.note_fault()
                run.pause(rng.uniform(0.2, 1))
            run.expect(lambda: _show(user, batch)["status"] == "completed", 300, "the end of the batch")
            _check(run, user, _show(user, batch), scale.batch_lines)
        finally:
            user.leave()
    run.outcome.notes = f"{scale.batch_lines} lines: 0 lost, 0 answered twice"
    return run.outcome


def _create(user: LoadUser, count: int) -> dict[str, Any]:
    content = jsonl(line(number) for number in range(count))
    form = {"data": {"purpose": "batch"}, "files": {"file": ("lines.jsonl", io.BytesIO(content))}}
    file_id = user.persist("upload", "POST", "/v1/files", **form).json()["id"]
    body = {"input_file_id": file_id, "endpoint": URL, "completion_window": "24h"}
    return user.persist("batch", "POST", "/v1/batches", json=body, headers={"Idempotency-Key": uuid4().hex}).json()


def _show(user: LoadUser, batch: dict[str, Any]) -> dict[str, Any]:
    return user.persist("show batch", "GET", f"/v1/batches/{batch['id']}").json()


def _check(run: Run, user: LoadUser, batch: dict[str, Any], count: int) -> None:
    counts = {"total": count, "completed": count, "failed": 0}
    run.outcome.require(batch["request_counts"] == counts, f"the batch has {batch['request_counts']}")
    content = user.persist("content", "GET", f"/v1/files/{batch['output_file_id']}/content").text
    found = [json.loads(each)["custom_id"] for each in content.splitlines()]
    run.outcome.require(found == [f"line-{number}" for number in range(count)], "the output file has other lines")
    endings = [event.prompt_id for event in run.recorder.feed(user.id) if event.prompt_id]
    run.outcome.require(len(endings) == len(set(endings)) == count, f"{len(endings)} lines ended, {count} were stored")
