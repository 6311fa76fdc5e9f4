"""`Idempotency-Key`: the same key and body from the same user within 24 hours store one prompt."""

import pytest
from sqlalchemy import text

from shared.db.engine import Sessions
from shared.prompts import idempotency
from shared.prompts.idempotency import KeyUse
from tests.support.client import ApiUser, assert_problem
from tests.support.threads import at_once
from worker.pipeline import Pipeline

BODY = {"prompt_text": "Hi", "websocket": True}


def submit(user: ApiUser, key: str = "K", **changes: object):
    return user.post("/prompts/", json=BODY | changes, headers={"Idempotency-Key": key})


def test_the_same_key_and_body_return_the_same_prompt(alice: ApiUser) -> None:
    first, second = submit(alice), submit(alice)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json == second.json
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    assert len(alice.get("/prompts/").json) == 1


def test_a_replay_shows_the_current_state_of_the_prompt(alice: ApiUser, worker: Pipeline) -> None:
    submit(alice)
    worker.process(1)
    assert submit(alice).json["status"] == "completed"


def test_a_body_with_the_same_values_in_another_spelling_is_a_replay(alice: ApiUser) -> None:
    first = submit(alice)
    data = b'{"websocket" : true, "prompt_text": "\\u0048i"}'
    second = alice.post("/prompts/", data=data, content_type="application/json", headers={"Idempotency-Key": "K"})
    assert second.json["id"] == first.json["id"]


@pytest.mark.parametrize("changes", [{"prompt_text": "Ho"}, {"websocket": False}])
def test_the_same_key_with_another_body_is_422(alice: ApiUser, changes: dict) -> None:
    submit(alice)
    assert_problem(submit(alice, **changes), 422)
    assert len(alice.get("/prompts/").json) == 1


def test_another_user_may_use_the_same_key(alice: ApiUser, bob: ApiUser) -> None:
    assert submit(alice).json["id"] != submit(bob).json["id"]


def test_a_repeat_is_409_while_the_first_submission_is_being_stored(alice: ApiUser, sessions: Sessions) -> None:
    with sessions.begin() as session:
        assert idempotency.reserve(session, [KeyUse(alice.id, "K", b"")]) == [None]
        assert_problem(submit(alice), 409)
    assert submit(alice).status_code == 202


def test_concurrent_submissions_with_one_key_store_one_prompt(alice: ApiUser) -> None:
    statuses = at_once(8, lambda: submit(alice).status_code)
    assert set(statuses) <= {202, 409}
    assert len(alice.get("/prompts/").json) == 1


def test_a_key_can_be_used_again_after_24_hours(alice: ApiUser, sessions: Sessions) -> None:
    first = submit(alice)
    with sessions.begin() as session:
        session.execute(text("UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second'"))
    assert submit(alice, prompt_text="Ho").json["id"] != first.json["id"]


def test_a_repeat_after_the_prompt_was_deleted_stores_nothing(alice: ApiUser) -> None:
    alice.delete(f"/prompts/{submit(alice).json['id']}/")
    assert_problem(submit(alice), 404)
    assert alice.get("/prompts/").json == []


@pytest.mark.parametrize("key", ["a" * 256, "with space", "ä"])
def test_an_invalid_key_is_400(alice: ApiUser, key: str) -> None:
    assert_problem(submit(alice, key), 400)


def test_expired_keys_are_purged(alice: ApiUser, sessions: Sessions) -> None:
    submit(alice, "old"), submit(alice, "new")
    with sessions.begin() as session:
        session.execute(text("UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = 'old'"))
        idempotency.purge(session)
        assert session.scalars(text("SELECT key FROM idempotency_keys")).all() == ["new"]


def test_default_values_and_missing_fields_are_the_same_body(alice: ApiUser) -> None:
    headers = {"Idempotency-Key": "K"}
    ids = {
        alice.post("/prompts/", json={"prompt_text": "Hi"} | more, headers=headers).json["id"]
        for more in ({}, {"history": 0}, {"history": None}, {"cache": None})
    }
    assert len(ids) == 1
