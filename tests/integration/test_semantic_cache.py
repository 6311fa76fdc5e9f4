"""What a worker takes from a user's earlier prompts: answers, if they want that, and context."""

import dataclasses

import pytest
from werkzeug.test import TestResponse

from shared.errors import ProviderError
from shared.providers import Exchange
from tests.support.client import ApiUser
from tests.support.providers import Counting, Script
from worker.pipeline import Pipeline

TIDES = "What causes the tides of the ocean?"


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
    """Submits a prompt, has it answered, and shows it."""
    headers = {"Cache-Control": "no-cache"} if no_cache else {}
    response = user.post("/prompts/", json={"prompt_text": text, **fields}, headers=headers)
    assert response.status_code == 202, response.text
    worker.process([response.json["id"]])
    return user.get(f"/prompts/{response.json['id']}/")


class TestUsage:
    def test_what_an_answer_took_is_shown(self, alice: ApiUser, answering: Pipeline) -> None:
        shown = ask(alice, answering, TIDES).json
        assert (shown["model"], shown["cached_from"]) == ("counting-large", None)
        assert shown["usage"] == {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}

    def test_a_retry_forgets_nothing_and_a_failure_took_nothing(self, alice: ApiUser, worker: Pipeline) -> None:
        refuses = dataclasses.replace(worker, generator=Script(ProviderError("no", retryable=False)))
        shown = ask(alice, refuses, TIDES).json
        assert (shown["status"], shown["model"], shown["usage"]) == ("failed", None, None)

    def test_each_prompt_has_an_idempotency_key_of_its_own(
        self, alice: ApiUser, answering: Pipeline, generator: Counting
    ) -> None:
        first, second = (ask(alice, answering, TIDES).json["id"] for _ in range(2))
        keys = [asked.idempotency_key for asked in generator.asked]
        assert keys[0].startswith(f"promptwire-{first}-")
        assert keys[1].startswith(f"promptwire-{second}-")


class TestCache:
    def test_the_same_prompt_is_answered_without_the_provider(
        self, alice: ApiUser, answering: Pipeline, generator: Counting
    ) -> None:
        first = ask(alice, answering, TIDES, cache=True)
        again = ask(alice, answering, "what causes the tides of the ocean", cache=True)
        assert first.headers["Cache-Status"] == "promptwire; fwd=miss; stored"
        assert again.headers["Cache-Status"] == f'promptwire; hit; key="{first.json["id"]}"'
        assert (again.json["cached_from"], again.json["response_text"]) == (first.json["id"], "answer 1")
        assert again.json["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        assert again.json["model"] == "counting-large"
        assert len(generator.asked) == 1

    def test_nobody_gets_it_who_does_not_ask(self, alice: ApiUser, answering: Pipeline) -> None:
        ask(alice, answering, TIDES)
        for fields in ({}, {"cache": False}):
            shown = ask(alice, answering, TIDES, **fields)
            assert (shown.json["cached_from"], "Cache-Status" in shown.headers) == (None, False)

    def test_by_setting_everybody_asks_who_does_not_refuse(self, make_app, answering: Pipeline) -> None:
        app, _ = make_app(semantic_cache=True)
        carol = ApiUser(app, "carol")
        first = ask(carol, answering, TIDES).json["id"]
        assert ask(carol, answering, TIDES).json["cached_from"] == first
        assert ask(carol, answering, TIDES, cache=False).json["cached_from"] is None

    def test_no_cache_has_it_answered_anew_and_that_answer_counts_from_then_on(
        self, alice: ApiUser, answering: Pipeline
    ) -> None:
        ask(alice, answering, TIDES, cache=True)
        fresh = ask(alice, answering, TIDES, cache=True, no_cache=True)
        assert fresh.headers["Cache-Status"] == "promptwire; fwd=request; stored"
        assert fresh.json["response_text"] == "answer 2"
        assert ask(alice, answering, TIDES, cache=True).json["cached_from"] == fresh.json["id"]

    def test_however_it_is_written(self, alice: ApiUser, answering: Pipeline) -> None:
        first = ask(alice, answering, TIDES).json["id"]
        for value, copy in (("No-Cache", None), ("max-age=0, no-cache", None), ("max-age=0", first)):
            prompt_id = alice.post(
                "/prompts/", json={"prompt_text": TIDES, "cache": True}, headers={"Cache-Control": value}
            ).json["id"]
            if copy is not None:
                alice.delete(f"/prompts/{first + 1}/")
                alice.delete(f"/prompts/{first + 2}/")
            answering.process([prompt_id])
            assert alice.show(prompt_id)["cached_from"] == copy

    def test_of_long_prompts_only_an_equal_one_counts(self, alice: ApiUser, answering: Pipeline) -> None:
        contract = "The parties agree on clause after clause of this. " * 60
        generous = dataclasses.replace(
            answering, semantic_cache=dataclasses.replace(answering.semantic_cache, distance=1.0)
        )
        first = ask(alice, generous, f"{contract} Who pays?").json["id"]
        assert ask(alice, generous, f"{contract} Who owns it?", cache=True).json["cached_from"] is None
        assert ask(alice, generous, f"{contract} Who pays?", cache=True).json["cached_from"] == first

    def test_one_that_fails_is_a_miss(self, alice: ApiUser, answering: Pipeline) -> None:
        class Broken:
            def search(self, *_: object) -> list:
                raise OSError("no index")

        broken = dataclasses.replace(
            answering, semantic_cache=dataclasses.replace(answering.semantic_cache, store=Broken())
        )
        ask(alice, answering, TIDES)
        shown = ask(alice, broken, TIDES, cache=True).json
        assert (shown["status"], shown["attempt"], shown["cached_from"]) == ("completed", 1, None)

    def test_another_prompt_is_answered_itself(self, alice: ApiUser, answering: Pipeline) -> None:
        ask(alice, answering, TIDES)
        assert ask(alice, answering, "What causes earthquakes?", cache=True).json["cached_from"] is None

    def test_how_near_is_near_enough_is_a_setting(self, alice: ApiUser, answering: Pipeline) -> None:
        generous = dataclasses.replace(
            answering, semantic_cache=dataclasses.replace(answering.semantic_cache, distance=1.5)
        )
        first = ask(alice, answering, TIDES).json["id"]
        assert ask(alice, generous, "tides of the ocean", cache=True).json["cached_from"] == first

    def test_never_from_another_user(self, alice: ApiUser, bob: ApiUser, answering: Pipeline) -> None:
        ask(alice, answering, TIDES)
        assert ask(bob, answering, TIDES, cache=True).json["cached_from"] is None

    def test_never_from_a_generator_with_other_settings(self, alice: ApiUser, answering: Pipeline) -> None:
        ask(alice, answering, TIDES)
        other = dataclasses.replace(answering, generator=Counting("another"))
        assert ask(alice, other, TIDES, cache=True).json["cached_from"] is None

    def test_never_from_one_that_was_answered_with_history(self, alice: ApiUser, answering: Pipeline) -> None:
        ask(alice, answering, "I live in Lisbon")
        ask(alice, answering, TIDES, history=3)
        assert ask(alice, answering, TIDES, cache=True).json["cached_from"] is None

    def test_never_for_one_with_history(self, alice: ApiUser, answering: Pipeline) -> None:
        ask(alice, answering, TIDES)
        shown = ask(alice, answering, TIDES, cache=True, history=1)
        assert shown.json["cached_from"] is None
        assert shown.headers["Cache-Status"] == "promptwire; fwd=bypass"

    def test_a_copy_leads_to_its_source_however_many_there_are(
        self, alice: ApiUser, answering: Pipeline, generator: Counting
    ) -> None:
        first = ask(alice, answering, TIDES).json["id"]
        copies = [ask(alice, answering, TIDES, cache=True).json for _ in range(25)]
        assert {copy["cached_from"] for copy in copies} == {first}
        assert len(generator.asked) == 1

    def test_a_copy_near_enough_does_not_lead_to_a_source_that_is_not(
        self, alice: ApiUser, answering: Pipeline
    ) -> None:
        def at(distance: float) -> Pipeline:
            return dataclasses.replace(
                answering, semantic_cache=dataclasses.replace(answering.semantic_cache, distance=distance)
            )

        source = ask(alice, answering, "alpha beta gamma delta").json["id"]
        assert ask(alice, at(0.6), "alpha beta gamma omega", cache=True).json["cached_from"] == source
        assert ask(alice, at(0.6), "alpha beta psi omega", cache=True).json["cached_from"] is None

    def test_a_deleted_prompt_answers_nothing_more(self, alice: ApiUser, answering: Pipeline) -> None:
        first = ask(alice, answering, TIDES).json["id"]
        copy = ask(alice, answering, TIDES, cache=True).json
        alice.delete(f"/prompts/{first}/")
        assert alice.show(copy["id"])["response_text"] == "answer 1"  # that is another prompt's
        assert ask(alice, answering, TIDES, cache=True).json["cached_from"] is None

    def test_failed_and_cancelled_ones_answer_nothing(self, alice: ApiUser, answering: Pipeline) -> None:
        alice.post(f"/prompts/{alice.submit(TIDES)}/cancel/")
        assert ask(alice, answering, TIDES, cache=True).json["cached_from"] is None


class TestHistory:
    def test_the_nearest_exchanges_come_along_oldest_first(
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

    def test_there_may_be_fewer(self, alice: ApiUser, answering: Pipeline, generator: Counting) -> None:
        ask(alice, answering, "hello", history=20)
        assert generator.asked[-1].history == []

    def test_of_equal_prompts_only_the_newest_comes(
        self, alice: ApiUser, answering: Pipeline, generator: Counting
    ) -> None:
        ask(alice, answering, "ocean swell")
        for _ in range(3):
            ask(alice, answering, "ocean tides")
        ask(alice, answering, "ocean tides", history=2)
        assert generator.asked[-1].history == [Exchange("ocean swell", "answer 1"), Exchange("ocean tides", "answer 4")]

    def test_none_come_unasked(self, alice: ApiUser, answering: Pipeline, generator: Counting) -> None:
        for _ in range(2):
            ask(alice, answering, TIDES)
        assert generator.asked[-1].history == []

    def test_never_another_users(self, alice: ApiUser, bob: ApiUser, answering: Pipeline, generator: Counting) -> None:
        ask(alice, answering, TIDES)
        ask(bob, answering, TIDES, history=5)
        assert generator.asked[-1].history == []

    def test_only_as_much_as_there_is_room_for_the_nearest_first(
        self, alice: ApiUser, answering: Pipeline, generator: Counting
    ) -> None:
        small = dataclasses.replace(
            answering, semantic_cache=dataclasses.replace(answering.semantic_cache, characters=60)
        )
        ask(alice, answering, "ocean tides")
        ask(alice, answering, "ocean tides " + "again and " * 20)
        ask(alice, answering, "ocean swell")
        ask(alice, small, "ocean tides", history=3)
        assert [each.prompt_text for each in generator.asked[-1].history] == ["ocean tides", "ocean swell"]

    def test_a_whole_number_may_be_written_with_a_point(self, alice: ApiUser) -> None:
        assert alice.post("/prompts/", json={"prompt_text": "Hi", "history": 2.0}).json["history"] == 2

    @pytest.mark.parametrize("history", [-1, 21, "2", 1.5, True])
    def test_its_size_is_bounded(self, alice: ApiUser, history: object) -> None:
        assert alice.post("/prompts/", json={"prompt_text": "Hi", "history": history}).status_code == 400


@pytest.mark.parametrize("cache", ["yes", 1])
def test_cache_is_true_or_false(alice: ApiUser, cache: object) -> None:
    assert alice.post("/prompts/", json={"prompt_text": "Hi", "cache": cache}).status_code == 400
