"""What a worker reuses of a user's earlier prompts: answers on request, and context."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import update
from werkzeug.test import TestResponse

from shared.db.engine import Sessions
from shared.db.models import Prompt
from shared.errors import ProviderError
from shared.providers import Exchange, GenerationRequest, Usage
from shared.providers.model_request import TEXT_ONLY, Capability, ModelRequest
from tests.support.client import ApiUser
from tests.support.providers import Counting, Script
from worker.pipeline import Pipeline

TIDES = "What causes the tides of the ocean?"
TOOL = {"type": "function", "function": {"name": "get_tide", "parameters": {"type": "object"}}}


def _turn(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


#: Two values of each field of a request; answers to one are not for the other.
REQUESTS: dict[str, tuple[Any, Any]] = {
    "messages": (_turn("a"), _turn("b")),
    "input": (_turn("a"), _turn("b")),
    "instructions": ("a", "b"),
    "temperature": (0, 0.5),
    "top_p": (0.1, 0.2),
    "max_output_tokens": (10, 20),
    "stop": (["a"], ["b"]),
    "seed": (0, 1),
    "frequency_penalty": (0, 1),
    "presence_penalty": (0, 1),
    "reasoning_effort": ("low", "high"),
    "response_format": ({"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}),
    "tools": ([TOOL], [TOOL, TOOL]),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (False, True),
}


class Json(Counting):
    """Answers any request: its answers are JSON objects, and it calls no tools."""

    def generate(self, request: GenerationRequest) -> Iterator[str | Usage]:
        yield "{}"


def with_cache(pipeline: Pipeline, **changes: object) -> Pipeline:
    """The pipeline with a semantic cache that differs in these fields."""
    return dataclasses.replace(pipeline, semantic_cache=dataclasses.replace(pipeline.semantic_cache, **changes))


@pytest.fixture
def generator() -> Counting:
    return Counting()


@pytest.fixture
def answering(worker: Pipeline, generator: Counting) -> Pipeline:
    return dataclasses.replace(worker, generator=generator)


def ask(user: ApiUser, worker: Pipeline, text: str, *, no_cache: bool = False, **fields: object) -> TestResponse:
    """Submit a prompt, have the worker answer it, and return its resource."""
    headers = {"Cache-Control": "no-cache"} if no_cache else {}
    response = user.post("/prompts/", json={"prompt_text": text, **fields}, headers=headers)
    assert response.status_code == 202, response.text
    worker.process(1)
    return user.get(f"/prompts/{response.json['id']}/")


class TestUsage:
    def test_a_prompt_shows_the_model_and_the_usage_of_its_answer(self, alice: ApiUser, answering: Pipeline) -> None:
        shown = ask(alice, answering, TIDES).json
        assert (shown["provider_model"], shown["cached_from"]) == ("counting-large", None)
        assert shown["usage"] == {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}

    def test_a_failed_prompt_shows_no_usage(self, alice: ApiUser, worker: Pipeline) -> None:
        refuses = dataclasses.replace(worker, generator=Script(ProviderError("no", retryable=False)))
        shown = ask(alice, refuses, TIDES).json
        assert (shown["status"], shown["provider_model"], shown["usage"]) == ("failed", None, None)

    def test_each_prompt_has_its_own_idempotency_key(
        self, alice: ApiUser, answering: Pipeline, generator: Counting
    ) -> None:
        first, second = (ask(alice, answering, TIDES).json["id"] for _ in range(2))
        keys = [request.idempotency_key for request in generator.asked]
        assert keys[0].startswith(f"promptwire-{first}-")
        assert keys[1].startswith(f"promptwire-{second}-")


class TestCache:
    def test_a_similar_prompt_is_answered_without_calling_the_provider(
        self, alice: ApiUser, answering: Pipeline, generator: Counting
    ) -> None:
        first = ask(alice, answering, TIDES, cache=True)
        again = ask(alice, answering, "what causes the tides of the ocean", cache=True)
        assert first.headers["Cache-Status"] == "promptwire; fwd=miss; stored"
        assert again.headers["Cache-Status"] == f'promptwire; hit; key="{first.json["id"]}"'
        assert (again.json["cached_from"], again.json["response_text"]) == (first.json["id"], "answer 1")
        assert again.json["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        assert again.json["provider_model"] == "counting-large"
        assert len(generator.asked) == 1

    def test_the_cache_is_not_used_unless_the_submission_asks_for_it(self, alice: ApiUser, answering: Pipeline) -> None:
        ask(alice, answering, TIDES)
        for fields in ({}, {"cache": False}):
            shown = ask(alice, answering, TIDES, **fields)
            assert (shown.json["cached_from"], "Cache-Status" in shown.headers) == (None, False)

    def test_the_cache_is_used_by_default_if_enabled_in_the_settings(self, make_app, answering: Pipeline) -> None:
        app, _ = make_app(semantic_cache=True)
        carol = ApiUser(app, "carol")
        first = ask(carol, answering, TIDES).json["id"]
        assert ask(carol, answering, TIDES).json["cached_from"] == first
        assert ask(carol, answering, TIDES, cache=False).json["cached_from"] is None

    def test_no_cache_generates_a_new_answer_which_replaces_the_cached_one(
        self, alice: ApiUser, answering: Pipeline
    ) -> None:
        ask(alice, answering, TIDES, cache=True)
        fresh = ask(alice, answering, TIDES, cache=True, no_cache=True)
        assert fresh.headers["Cache-Status"] == "promptwire; fwd=request; stored"
        assert fresh.json["response_text"] == "answer 2"
        assert ask(alice, answering, TIDES, cache=True).json["cached_from"] == fresh.json["id"]

    def test_no_cache_is_recognised_in_any_spelling_of_the_header(self, alice: ApiUser, answering: Pipeline) -> None:
        first = ask(alice, answering, TIDES).json["id"]
        for value, copy in (("No-Cache", None), ("max-age=0, no-cache", None), ("max-age=0", first)):
            prompt_id = alice.post(
                "/prompts/", json={"prompt_text": TIDES, "cache": True}, headers={"Cache-Control": value}
            ).json["id"]
            if copy is not None:
                alice.delete(f"/prompts/{first + 1}/")
                alice.delete(f"/prompts/{first + 2}/")
            answering.process(1)
            assert alice.show(prompt_id)["cached_from"] == copy

    def test_a_long_prompt_is_only_answered_from_an_equal_prompt(self, alice: ApiUser, answering: Pipeline) -> None:
        contract = "The parties agree on clause after clause of this. " * 60
        generous = with_cache(answering, distance=1.0)
        first = ask(alice, generous, f"{contract} Who pays?").json["id"]
        assert ask(alice, generous, f"{contract} Who owns it?", cache=True).json["cached_from"] is None
        assert ask(alice, generous, f"{contract} Who pays?", cache=True).json["cached_from"] == first

    def test_a_failing_cache_lookup_is_a_miss(self, alice: ApiUser, answering: Pipeline) -> None:
        class Broken:
            def search(self, *_: object) -> list:
                raise OSError("no index")

        broken = with_cache(answering, store=Broken())
        ask(alice, answering, TIDES)
        shown = ask(alice, broken, TIDES, cache=True).json
        assert (shown["status"], shown["attempt"], shown["cached_from"]) == ("completed", 1, None)

    def test_a_different_prompt_is_not_answered_from_the_cache(self, alice: ApiUser, answering: Pipeline) -> None:
        ask(alice, answering, TIDES)
        assert ask(alice, answering, "What causes earthquakes?", cache=True).json["cached_from"] is None

    def test_the_maximum_distance_is_configurable(self, alice: ApiUser, answering: Pipeline) -> None:
        generous = with_cache(answering, distance=1.5)
        first = ask(alice, answering, TIDES).json["id"]
        assert ask(alice, generous, "tides of the ocean", cache=True).json["cached_from"] == first

    def test_another_users_answer_is_never_reused(self, alice: ApiUser, bob: ApiUser, answering: Pipeline) -> None:
        ask(alice, answering, TIDES)
        assert ask(bob, answering, TIDES, cache=True).json["cached_from"] is None

    def test_an_answer_of_another_generator_is_never_reused(self, alice: ApiUser, answering: Pipeline) -> None:
        ask(alice, answering, TIDES)
        other = dataclasses.replace(answering, generator=Counting("another"))
        assert ask(alice, other, TIDES, cache=True).json["cached_from"] is None

    def test_an_answer_that_used_history_is_never_reused(self, alice: ApiUser, answering: Pipeline) -> None:
        ask(alice, answering, "I live in Lisbon")
        ask(alice, answering, TIDES, history=3)
        assert ask(alice, answering, TIDES, cache=True).json["cached_from"] is None

    @pytest.mark.parametrize(
        ("reason", "is_reused"),
        [("stop", True), (None, True), ("length", False), ("content_filter", False), ("tool_calls", False)],
    )
    def test_only_an_answer_that_was_not_cut_off_is_reused_with_its_finish_reason(
        self, alice: ApiUser, worker: Pipeline, reason: str | None, is_reused: bool
    ) -> None:
        class Ending(Counting):
            def generate(self, request: GenerationRequest) -> Iterator[str | Usage]:
                yield "an answer"
                yield Usage(finish_reason=reason)

        answering = dataclasses.replace(worker, generator=Ending())
        first = ask(alice, answering, TIDES).json
        assert (first["status"], first["finish_reason"]) == ("completed", reason)
        again = ask(alice, answering, TIDES, cache=True).json
        assert (again["cached_from"] == first["id"], again["finish_reason"]) == (is_reused, reason)

    def test_every_field_of_a_request_has_a_value_here(self) -> None:
        """So that a new field cannot be forgotten."""
        assert set(REQUESTS) == {field.name for field in dataclasses.fields(ModelRequest)}

    @pytest.mark.parametrize("name", REQUESTS)
    def test_an_answer_is_only_reused_for_the_same_request(
        self, alice: ApiUser, worker: Pipeline, sessions: Sessions, name: str
    ) -> None:
        answering = dataclasses.replace(worker, generator=Json(), capabilities=frozenset(Capability))
        asked, other = ModelRequest(**{name: REQUESTS[name][0]}), ModelRequest(**{name: REQUESTS[name][1]})

        def cached_from(request: ModelRequest) -> int | None:
            submitted = alice.post("/prompts/", json={"prompt_text": TIDES, "cache": True}).json["id"]
            with sessions.begin() as session:
                stored = {"request": request.stored, "request_hash": request.hash}
                session.execute(update(Prompt).where(Prompt.id == submitted).values(stored))
            answering.process(1)
            return alice.show(submitted)["cached_from"]

        assert [cached_from(TEXT_ONLY), cached_from(asked), cached_from(other)] == [None, None, None]
        assert [cached_from(TEXT_ONLY), cached_from(asked), cached_from(other)] == [1, 2, 3]

    def test_an_answer_of_another_model_route_is_never_reused(
        self, alice: ApiUser, answering: Pipeline, sessions: Sessions
    ) -> None:
        first = ask(alice, answering, TIDES).json["id"]
        with sessions.begin() as session:
            session.execute(update(Prompt).where(Prompt.id == first).values(route="other"))
        assert ask(alice, answering, TIDES, cache=True).json["cached_from"] is None

    def test_an_answer_that_calls_tools_is_never_reused(self, alice: ApiUser, worker: Pipeline) -> None:
        calling = {"tools": [TOOL], "tool_choice": "required", "cache": True}
        assert ask(alice, worker, TIDES, **calling).json["tool_calls"]
        assert ask(alice, worker, TIDES, **calling).json["cached_from"] is None

    def test_a_prompt_with_history_bypasses_the_cache(self, alice: ApiUser, answering: Pipeline) -> None:
        ask(alice, answering, TIDES)
        shown = ask(alice, answering, TIDES, cache=True, history=1)
        assert shown.json["cached_from"] is None
        assert shown.headers["Cache-Status"] == "promptwire; fwd=bypass"

    def test_every_cached_answer_refers_to_its_original_source(
        self, alice: ApiUser, answering: Pipeline, generator: Counting
    ) -> None:
        first = ask(alice, answering, TIDES).json["id"]
        copies = [ask(alice, answering, TIDES, cache=True).json for _ in range(25)]
        assert {copy["cached_from"] for copy in copies} == {first}
        assert len(generator.asked) == 1

    def test_a_near_copy_whose_source_is_too_far_is_not_reused(self, alice: ApiUser, answering: Pipeline) -> None:
        def at(distance: float) -> Pipeline:
            return with_cache(answering, distance=distance)

        source = ask(alice, answering, "alpha beta gamma delta").json["id"]
        assert ask(alice, at(0.6), "alpha beta gamma omega", cache=True).json["cached_from"] == source
        assert ask(alice, at(0.6), "alpha beta psi omega", cache=True).json["cached_from"] is None

    def test_the_answer_of_a_deleted_prompt_is_never_reused(self, alice: ApiUser, answering: Pipeline) -> None:
        first = ask(alice, answering, TIDES).json["id"]
        copy = ask(alice, answering, TIDES, cache=True).json
        alice.delete(f"/prompts/{first}/")
        assert alice.show(copy["id"])["response_text"] == "answer 1"  # the copy belongs to another prompt
        assert ask(alice, answering, TIDES, cache=True).json["cached_from"] is None

    def test_a_cancelled_prompt_is_never_reused(self, alice: ApiUser, answering: Pipeline) -> None:
        alice.post(f"/prompts/{alice.submit(TIDES)}/cancel/")
        assert ask(alice, answering, TIDES, cache=True).json["cached_from"] is None


class TestHistory:
    def test_an_answer_that_calls_tools_is_not_in_the_history(
        self, alice: ApiUser, worker: Pipeline, answering: Pipeline, generator: Counting
    ) -> None:
        ask(alice, worker, "ocean tides at spring", tools=[TOOL], tool_choice="required")
        ask(alice, answering, "ocean tides at neap")
        ask(alice, answering, "more on ocean tides", history=2)
        assert generator.asked[-1].history == [Exchange("ocean tides at neap", "answer 1")]

    def test_the_nearest_exchanges_are_sent_oldest_first(
        self, alice: ApiUser, answering: Pipeline, generator: Counting
    ) -> None:
        for text in ("ocean tides at spring", "recipe for bread", "ocean tides at neap", "chess openings"):
            ask(alice, answering, text)
        shown = ask(alice, answering, "more on ocean tides", history=2).json
        assert shown["history"] == 2
        assert generator.asked[-1].history == [
            Exchange("ocean tides at spring", "answer 1"),
            Exchange("ocean tides at neap", "answer 3"),
        ]

    def test_the_history_is_shorter_if_there_are_fewer_exchanges(
        self, alice: ApiUser, answering: Pipeline, generator: Counting
    ) -> None:
        ask(alice, answering, "hello", history=20)
        assert generator.asked[-1].history == []

    def test_only_the_newest_of_equal_prompts_is_in_the_history(
        self, alice: ApiUser, answering: Pipeline, generator: Counting
    ) -> None:
        ask(alice, answering, "ocean swell")
        for _ in range(3):
            ask(alice, answering, "ocean tides")
        ask(alice, answering, "ocean tides", history=2)
        assert generator.asked[-1].history == [Exchange("ocean swell", "answer 1"), Exchange("ocean tides", "answer 4")]

    def test_the_history_is_empty_unless_the_submission_asks_for_it(
        self, alice: ApiUser, answering: Pipeline, generator: Counting
    ) -> None:
        for _ in range(2):
            ask(alice, answering, TIDES)
        assert generator.asked[-1].history == []

    def test_another_users_exchanges_are_never_in_the_history(
        self, alice: ApiUser, bob: ApiUser, answering: Pipeline, generator: Counting
    ) -> None:
        ask(alice, answering, TIDES)
        ask(bob, answering, TIDES, history=5)
        assert generator.asked[-1].history == []

    def test_the_nearest_exchanges_fill_the_character_limit_first(
        self, alice: ApiUser, answering: Pipeline, generator: Counting
    ) -> None:
        small = with_cache(answering, characters=60)
        ask(alice, answering, "ocean tides")
        ask(alice, answering, "ocean tides " + "again and " * 20)
        ask(alice, answering, "ocean swell")
        ask(alice, small, "ocean tides", history=3)
        assert [each.prompt_text for each in generator.asked[-1].history] == ["ocean tides", "ocean swell"]

    def test_history_accepts_a_whole_number_with_a_decimal_point(self, alice: ApiUser) -> None:
        assert alice.post("/prompts/", json={"prompt_text": "Hi", "history": 2.0}).json["history"] == 2

    @pytest.mark.parametrize("history", [-1, 21, "2", 1.5, True])
    def test_an_invalid_history_is_400(self, alice: ApiUser, history: object) -> None:
        assert alice.post("/prompts/", json={"prompt_text": "Hi", "history": history}).status_code == 400


@pytest.mark.parametrize("cache", ["yes", 1])
def test_a_cache_field_that_is_not_a_boolean_is_400(alice: ApiUser, cache: object) -> None:
    assert alice.post("/prompts/", json={"prompt_text": "Hi", "cache": cache}).status_code == 400
