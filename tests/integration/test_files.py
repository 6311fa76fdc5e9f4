"""Files: `POST /v1/files`, and reading, listing and deleting them."""

import io
import os
from datetime import timedelta

import pytest
from sqlalchemy import text

from shared.batches import batches, files
from shared.db.engine import Sessions
from tests.support.batches import create, jsonl, line, upload
from tests.support.client import ApiUser

CHUNK = files.CHUNK_BYTES


def count(sessions: Sessions, table: str) -> int:
    with sessions() as session:
        return session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()  # noqa: S608


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_a_file_is_read_as_it_was_written(alice: ApiUser, sessions: Sessions, size: int) -> None:
    content = os.urandom(size)
    stored = upload(alice, content, filename="données.jsonl").json
    assert (stored["bytes"], stored["filename"], stored["purpose"]) == (size, "données.jsonl", "batch")
    assert alice.get(f"/v1/files/{stored['id']}").json == stored
    response = alice.get(f"/v1/files/{stored['id']}/content")
    assert (response.data, response.content_length) == (content, size)
    assert count(sessions, "file_chunks") == -(-size // CHUNK)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"file": (io.BytesIO(b"x"), "a")}, "purpose"),
        ({"purpose": "fine-tune", "file": (io.BytesIO(b"x"), "a")}, "purpose"),
        ({"purpose": "batch"}, "file"),
        ({"purpose": "batch", "file": "text"}, "file"),
        ({"purpose": "batch", "file": (io.BytesIO(b"x"), "a"), "expires_after": "1"}, "expires_after"),
        ({"purpose": "batch", "file": [(io.BytesIO(b"x"), "a"), (io.BytesIO(b"y"), "b")]}, "file"),
        ({"purpose": "batch", "file": (io.BytesIO(b"x"), "a" * 256)}, "file"),
    ],
)
def test_an_invalid_upload_is_refused_and_leaves_nothing(
    alice: ApiUser, sessions: Sessions, fields: dict, param: str
) -> None:
    response = alice.post("/v1/files", data=fields, content_type="multipart/form-data")
    assert (response.status_code, response.json["error"]["param"]) == (400, param)
    assert (count(sessions, "files"), count(sessions, "file_chunks")) == (0, 0)


def test_a_body_that_is_no_form_is_refused(alice: ApiUser) -> None:
    assert alice.post("/v1/files", json={"purpose": "batch"}).status_code == 415


@pytest.mark.parametrize("with_length", [True, False])
def test_a_file_over_the_limit_is_refused_and_leaves_nothing(make_app, sessions: Sessions, with_length: bool) -> None:
    alice = ApiUser(make_app(max_file_bytes=2 * CHUNK)[0], "alice")
    size = 2 * CHUNK + 1 if with_length else 4 * CHUNK
    assert upload(alice, b"x" * size).status_code == 413
    assert count(sessions, "files") == 0
    assert upload(alice, b"x" * 2 * CHUNK).status_code == 200


def test_the_files_of_a_user_have_a_number_of_bytes(make_app, sessions: Sessions) -> None:
    alice = ApiUser(make_app(user_file_bytes=CHUNK + 10)[0], "alice")
    first = upload(alice, b"x" * CHUNK).json
    response = upload(alice, b"x" * 11)
    assert (response.status_code, "USER_FILE_BYTES" in response.json["error"]["message"]) == (429, True)
    assert count(sessions, "files") == 1
    alice.delete(f"/v1/files/{first['id']}")
    assert upload(alice, b"x" * 11).status_code == 200


def test_only_this_route_takes_more_than_max_body_bytes(make_app) -> None:
    alice = ApiUser(make_app(max_body_bytes=2048)[0], "alice")
    assert upload(alice, b"x" * 4096).status_code == 200
    assert alice.post("/prompts/", json={"prompt_text": "x" * 4096}).status_code == 413


def test_files_are_listed_in_pages_by_purpose_and_order(alice: ApiUser, bob: ApiUser) -> None:
    made = [upload(alice, b"x").json["id"] for _ in range(3)]
    first = alice.get("/v1/files?limit=2").json
    assert ([each["id"] for each in first["data"]], first["has_more"]) == ([made[2], made[1]], True)
    assert [each["id"] for each in alice.get(f"/v1/files?after={made[1]}").json["data"]] == [made[0]]
    oldest_first = alice.get(f"/v1/files?order=asc&after={made[0]}").json["data"]
    assert [each["id"] for each in oldest_first] == made[1:]
    assert alice.get("/v1/files?purpose=batch_output").json["data"] == []
    assert bob.get("/v1/files").json["data"] == []


@pytest.mark.parametrize("method", ["GET", "DELETE", "content"])
def test_anothers_file_does_not_exist(alice: ApiUser, bob: ApiUser, method: str) -> None:
    path = f"/v1/files/{upload(alice, b'x').json['id']}" + ("/content" if method == "content" else "")
    response = bob.call("GET" if method == "content" else method, path)
    assert (response.status_code, response.json["error"]["code"]) == (404, "file_not_stored")


def test_the_input_of_a_running_batch_cannot_be_deleted(alice: ApiUser) -> None:
    batch = create(alice, [line(1)])
    response = alice.delete(f"/v1/files/{batch['input_file_id']}")
    assert (response.status_code, response.json["error"]["code"]) == (409, "file_in_use")


def test_a_deleted_file_is_gone(alice: ApiUser, sessions: Sessions) -> None:
    file_id = upload(alice, jsonl([line(1)])).json["id"]
    assert alice.delete(f"/v1/files/{file_id}").json == {"id": file_id, "object": "file", "deleted": True}
    assert alice.get(f"/v1/files/{file_id}").status_code == 404
    assert (count(sessions, "files"), count(sessions, "file_chunks")) == (0, 0)


def test_retention_deletes_old_files_and_batches_but_none_that_is_used(alice: ApiUser, sessions: Sessions) -> None:
    create(alice, [line(1)])
    upload(alice, b"unused")
    with sessions.begin() as session:
        session.execute(text("UPDATE files SET created_at = now() - interval '2 days'"))
        session.execute(text("UPDATE batches SET created_at = now() - interval '2 days'"))
        files.purge_old(session, timedelta(days=1))
        batches.purge_old(session, timedelta(days=1))
    assert (count(sessions, "files"), count(sessions, "batches")) == (1, 1)
    with sessions.begin() as session:
        session.execute(text("UPDATE batches SET due_at = NULL, status = 'cancelled'"))
        batches.purge_old(session, timedelta(days=1))
        files.purge_old(session, timedelta(days=1))
    assert (count(sessions, "files"), count(sessions, "batches")) == (0, 0)


def test_what_an_interrupted_upload_has_left_is_invisible_and_deleted_after_a_day(
    alice: ApiUser, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        file_id = files.begin(session, alice.id, files.FilePurpose.BATCH)
        files.add_chunk(session, file_id, 0, b"x")
    assert alice.get(f"/v1/files/file-{file_id}").status_code == 404
    assert alice.get("/v1/files").json["data"] == []
    with sessions.begin() as session:
        files.purge_interrupted(session)
    assert count(sessions, "files") == 1
    with sessions.begin() as session:
        session.execute(text("UPDATE files SET created_at = now() - interval '25 hours'"))
        files.purge_interrupted(session)
    assert (count(sessions, "files"), count(sessions, "file_chunks")) == (0, 0)
