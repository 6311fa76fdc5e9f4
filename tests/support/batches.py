"""Batches in tests: their input files, a driver and a worker, and what is in their output files."""

import io
import json
from collections.abc import Iterable, Sequence

from sqlalchemy import Engine, text
from werkzeug.datastructures import FileStorage
from werkzeug.test import TestResponse, encode_multipart

from shared.db.engine import Sessions
from shared.messaging.announcements import Announcer
from shared.messaging.queue import Queue, make_celery
from shared.messaging.redis import make_redis
from shared.settings import Settings
from tests.support.client import ApiUser
from worker.batches.driver import BatchDriver
from worker.pipeline import Pipeline

URL = "/v1/chat/completions"


def line(number: int, text: str | None = None, **changes: object) -> dict:
    """A valid line, with changes."""
    body = {"model": "default", "messages": [{"role": "user", "content": text or f"Question {number}"}]}
    return {"custom_id": f"line-{number}", "method": "POST", "url": URL, "body": body} | changes


def jsonl(lines: Iterable[object]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


def upload(user: ApiUser, content: bytes, *, purpose: str = "batch", filename: str = "lines.jsonl") -> TestResponse:
    """The response to an upload."""
    # In memory: the test client would leave a temporary file open.
    boundary, body = encode_multipart({"purpose": purpose, "file": FileStorage(io.BytesIO(content), filename, "file")})
    return user.post("/v1/files", data=body, content_type=f'multipart/form-data; boundary="{boundary}"')


def create(user: ApiUser, lines: bytes | Sequence[object], **fields: object) -> dict:
    """Upload lines, and create a batch of them."""
    content = lines if isinstance(lines, bytes) else jsonl(lines)
    uploaded = upload(user, content)
    assert uploaded.status_code == 200, uploaded.text
    body = {"input_file_id": uploaded.json["id"], "endpoint": URL, "completion_window": "24h"} | fields
    response = user.post("/v1/batches", json=body)
    assert response.status_code == 200, response.text
    return response.json


def show(user: ApiUser, batch: dict) -> dict:
    return user.get(f"/v1/batches/{batch['id']}").json


def results(user: ApiUser, batch: dict, name: str = "output_file_id") -> list[dict]:
    """The lines of an output or error file."""
    if batch[name] is None:
        return []
    response = user.get(f"/v1/files/{batch[name]}/content")
    assert response.status_code == 200, response.text
    return [json.loads(each) for each in response.data.splitlines()]


def make_driver(settings: Settings, sessions: Sessions, autocommit_engine: Engine) -> BatchDriver:
    redis = make_redis(settings)
    return BatchDriver(settings, sessions, autocommit_engine, Queue(make_celery(settings), redis), Announcer(redis))


def make_due(sessions: Sessions) -> None:
    """Let no batch wait for its next step."""
    with sessions.begin() as session:
        session.execute(text("UPDATE batches SET due_at = now() WHERE due_at IS NOT NULL"))


def run(user: ApiUser, batch: dict, driver: BatchDriver, worker: Pipeline, sessions: Sessions) -> dict:
    """Do steps and answer prompts until the batch has ended."""
    for _ in range(200):
        make_due(sessions)
        driver.round()
        worker.process(100)
        shown = show(user, batch)
        if shown["status"] in ("completed", "failed", "expired", "cancelled"):
            return shown
    raise AssertionError(f"The batch has not ended: {shown}")
