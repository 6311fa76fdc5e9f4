"""Chat completions that have been created: the list, the messages of their requests, and `store: false`."""

from collections.abc import Iterator
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionStoreMessage
from sqlalchemy import text

from shared.db.engine import Sessions
from tests.support import chat
from tests.support.batches import create as create_batch
from tests.support.batches import line, make_driver, show
from tests.support.chat import PATH, assert_error
from tests.support.client import ApiUser
from tests.support.worker_threads import answering
from worker.maintenance.unstored import UnstoredPrompts
from worker.pipeline import Pipeline

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


@pytest.fixture
def answered(worker: Pipeline) -> Iterator[None]:
    """Prompts are answered."""
    with answering(worker, at_once=10):
        yield


def complete(user: ApiUser, question: str = "What is a tide?", **fields: Any) -> str:
    """Create a chat completion. Returns its id."""
    response = chat.create(user, question, **fields)
    assert response.status_code == 200, response.text
    return response.json["id"]


def ids(user: ApiUser, query: str = "") -> list[str]:
    response = user.get(f"{PATH}{query}")
    assert response.status_code == 200, response.text
    return [each["id"] for each in response.json["data"]]


@pytest.mark.usefixtures("answered")
class TestList:
    def test_a_listed_completion_is_the_same_as_a_retrieved_one(self, alice: ApiUser) -> None:
        completion_id = complete(alice, metadata={"topic": "sea"})
        listed = alice.get(PATH).json
        assert listed == {
            "object": "list",
            "data": [alice.get(f"{PATH}/{completion_id}").json],
            "first_id": completion_id,
            "last_id": completion_id,
            "has_more": False,
        }
        ChatCompletion.model_validate(listed["data"][0], strict=True)

    def test_pages_are_oldest_first_or_newest_first(self, alice: ApiUser) -> None:
        made = [complete(alice) for _ in range(3)]
        assert ids(alice) == ids(alice, "?order=asc") == made
        assert ids(alice, "?order=desc") == made[::-1]
        first = alice.get(f"{PATH}?limit=2").json
        assert ([each["id"] for each in first["data"]], first["has_more"]) == (made[:2], True)
        last = alice.get(f"{PATH}?limit=2&after={first['last_id']}").json
        assert ([each["id"] for each in last["data"]], last["has_more"]) == (made[2:], False)
        assert ids(alice, f"?order=desc&after={made[1]}") == made[:1]

    def test_only_completed_chat_completions_of_the_user_are_listed(self, alice: ApiUser, bob: ApiUser) -> None:
        alice.post("/prompts/", json={"prompt_text": "Hi"}, headers={"Prefer": "wait=60"})
        complete(bob)
        complete(alice, store=False)
        kept = complete(alice, store=True)
        assert ids(alice) == [kept]

    def test_model_and_metadata_select(self, alice: ApiUser) -> None:
        complete(alice)
        both, one = (complete(alice, metadata=each) for each in ({"a": "1", "b": "2"}, {"a": "1"}))
        assert ids(alice, "?metadata[a]=1") == [both, one]
        assert ids(alice, "?metadata[a]=1&metadata[b]=2&model=default") == [both]
        assert ids(alice, "?model=another") == []

    @pytest.mark.parametrize(
        ("query", "param"),
        [("after=resp_1", "after"), ("limit=0", "limit"), ("order=up", "order"), ("colour=red", "colour")],
    )
    def test_a_malformed_parameter_is_refused_with_its_name(self, alice: ApiUser, query: str, param: str) -> None:
        assert assert_error(alice.get(f"{PATH}?{query}"), 400)["param"] == param


@pytest.mark.usefixtures("answered")
class TestMessages:
    def test_the_messages_are_those_of_the_request(self, alice: ApiUser) -> None:
        parts = [{"type": "text", "text": "What is this?"}, IMAGE]
        given = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": parts, "name": "alice"},
        ]
        completion_id = complete(alice, messages=given)
        listed = alice.get(f"{PATH}/{completion_id}/messages").json
        assert [(each["role"], each["content"], each["content_parts"], each["name"]) for each in listed["data"]] == [
            ("system", "Be brief.", None, None),
            ("user", "Hi", None, None),
            ("assistant", "Hello!", None, None),
            ("user", None, parts, "alice"),
        ]
        ChatCompletionStoreMessage.model_validate(listed["data"][2])
        middle = alice.get(f"{PATH}/{completion_id}/messages?limit=2&order=desc&after={listed['last_id']}").json
        assert ([each["content"] for each in middle["data"]], middle["has_more"]) == (["Hello!", "Hi"], True)


@pytest.mark.usefixtures("answered")
class TestMetadata:
    @pytest.mark.parametrize("metadata", [{"topic": "sea"}, {}, None])
    def test_metadata_is_replaced_also_for_caches(self, alice: ApiUser, metadata: dict | None) -> None:
        completion_id = complete(alice, metadata={"topic": "land", "old": "1"})
        prompt = f"/prompts/{completion_id.removeprefix('chatcmpl-')}/"
        etag = alice.get(prompt).headers["ETag"]
        response = alice.post(f"{PATH}/{completion_id}", json={"metadata": metadata})
        assert (response.status_code, response.json["metadata"]) == (200, metadata or {})
        assert response.json == alice.get(f"{PATH}/{completion_id}").json
        assert alice.get(prompt, headers={"If-None-Match": etag}).json["metadata"] == (metadata or {})

    def test_nothing_else_can_be_changed(self, alice: ApiUser) -> None:
        completion_id = complete(alice)
        for body in ({}, {"metadata": {"a": 1}}, {"metadata": {}, "model": "default"}):
            assert_error(alice.post(f"{PATH}/{completion_id}", json=body), 400)


@pytest.mark.usefixtures("answered")
class TestUnstored:
    def test_the_answer_cannot_be_retrieved_and_is_deleted_ten_minutes_after_its_end(
        self, alice: ApiUser, worker: Pipeline, sessions: Sessions
    ) -> None:
        unstored = UnstoredPrompts(worker.sessions, worker.announcer)
        completion_id, kept = complete(alice, "secret", store=False), complete(alice)
        for method, path in (("GET", ""), ("GET", "/messages"), ("POST", ""), ("DELETE", "")):
            body = {"metadata": {}} if method == "POST" else None
            assert_error(alice.call(method, f"{PATH}/{completion_id}{path}", json=body), 404)
        unstored.round()
        assert len(alice.get("/prompts/").json) == 2
        with sessions.begin() as session:
            session.execute(text("UPDATE prompts SET completed_at = completed_at - interval '11 min'"))
        unstored.round()
        assert [f"chatcmpl-{prompt['id']}" for prompt in alice.get("/prompts/").json] == [kept]

    def test_a_repeat_with_the_same_key_gets_the_answer(self, alice: ApiUser) -> None:
        first, again = (
            alice.post(PATH, json=chat.body(store=False), headers={"Idempotency-Key": "key"}) for _ in range(2)
        )
        assert (first.status_code, first.json) == (200, again.json)

    def test_a_line_of_a_batch_cannot_have_it(self, alice: ApiUser, settings, sessions, autocommit_engine) -> None:
        batch = create_batch(alice, [line(1, body=chat.body(store=False))])
        make_driver(settings, sessions, autocommit_engine).step()
        (error,) = show(alice, batch)["errors"]["data"]
        assert error["param"] == "store"
