"""`prompts.js` alone, in a browser: events and responses that overtake each other."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.support.browser import Visitor

_RUN = """async (steps) => {
    const { Prompts } = await import("/static/prompts.js");
    const calls = [];
    const prompts = new Prompts({
        changed: () => {},
        ended: ({ id, status }) => calls.push(["ended", id, status]),
        unknown: (id) => calls.push(["unknown", id]),
    });
    let began = 0;
    for (const [name, ...args] of steps) {
        if (name === "begin") began = prompts.time;
        else if (name === "put") prompts.put(args, began);
        else if (name === "replace") prompts.replace(args, began, true);
        else prompts[name](...args);
    }
    const { status, partialText, keptText, hasGap, response_text, finish_reason } = prompts.get(7) ?? {};
    const { unfinished } = prompts;
    return { status, partialText, keptText, hasGap, response_text, finish_reason, calls, unfinished };
}"""

BEGIN = ("begin",)


def prompt(status: str, attempt: int = 0, **fields: Any) -> dict[str, Any]:
    known = {"id": 7, "prompt_text": "?", "response_text": None, "completed_at": None, "created_at": "2026-01-01"}
    return known | {"status": status, "attempt": attempt} | fields


def delta(attempt: int, index: int, text: str) -> tuple[str, dict[str, Any]]:
    return "apply", {"type": "prompt.delta", "id": 7, "attempt": attempt, "index": index, "text": text}


def end(
    status: str, at: str, response_text: str | None = None, finish_reason: str | None = None
) -> tuple[str, dict[str, Any]]:
    fields = {"type": f"prompt.{status}", "seq": 1, "completed_at": at, "response_text": response_text}
    fields["finish_reason"] = finish_reason
    return "apply", prompt(status, **fields)


@pytest.fixture(scope="module")
def page(browser: Browser, url: str) -> Iterator[Page]:
    """One page for all tests: each makes objects of its own there."""
    visitor = Visitor(browser, url)
    yield visitor.page
    visitor.close()
    assert visitor.complaints == []


@pytest.fixture
def state_after(page: Page) -> Callable[..., dict[str, Any]]:
    return lambda *steps: page.evaluate(_RUN, [list(step) for step in steps])


QUEUED = (BEGIN, ("put", prompt("queued")))


class TestPartialText:
    def test_deltas_are_joined(self, state_after) -> None:
        state = state_after(*QUEUED, delta(1, 0, "a "), delta(1, 1, "b "))
        assert (state["status"], state["partialText"], state["hasGap"]) == ("processing", "a b ", False)

    def test_a_delta_that_is_sent_twice_is_shown_once(self, state_after) -> None:
        assert state_after(*QUEUED, delta(1, 0, "a "), delta(1, 0, "a "))["partialText"] == "a "

    def test_deltas_that_overtake_the_response_to_the_submission_are_shown(self, state_after) -> None:
        state = state_after(BEGIN, delta(1, 0, "a "), delta(1, 1, "b "), *QUEUED, delta(1, 2, "c "))
        assert (state["status"], state["partialText"], state["hasGap"]) == ("processing", "a b c ", False)
        assert state["calls"] == [["unknown", 7], ["unknown", 7]]

    def test_the_first_deltas_of_a_retry_from_elsewhere_are_shown(self, state_after) -> None:
        failed = (BEGIN, ("put", prompt("failed", attempt=1)))
        state = state_after(
            *failed, delta(2, 0, "a "), BEGIN, ("put", prompt("processing", attempt=2)), delta(2, 1, "b ")
        )
        assert (state["partialText"], state["hasGap"]) == ("a b ", False)

    def test_early_deltas_of_a_prompt_that_has_ended_are_forgotten(self, state_after) -> None:
        state = state_after(delta(2, 0, "a "), end("completed", "1", "a b"), BEGIN, ("put", prompt("completed", 1)))
        assert state["calls"] == [["unknown", 7], ["ended", 7, "completed"]]

    def test_a_gap_is_marked_until_the_prompt_finishes(self, state_after) -> None:
        state = state_after(*QUEUED, delta(1, 0, "a "), delta(1, 2, "c "), delta(1, 3, "d "))
        assert (state["partialText"], state["hasGap"]) == ("a ", True)
        state = state_after(*QUEUED, delta(1, 2, "c "), end("completed", "1", "a b c d", "length"))
        assert (state["response_text"], state["hasGap"], state["finish_reason"]) == ("a b c d", False, "length")

    def test_a_later_attempt_restarts_the_text_and_ends_the_earlier_one(self, state_after) -> None:
        state = state_after(*QUEUED, delta(1, 0, "a "), delta(1, 2, "c "), delta(2, 0, "A "), delta(1, 3, "d "))
        assert (state["partialText"], state["hasGap"]) == ("A ", False)

    def test_partial_text_survives_a_reload_of_the_list(self, state_after) -> None:
        state = state_after(*QUEUED, delta(1, 0, "a "), BEGIN, ("put", prompt("processing", 1)), delta(1, 1, "b "))
        assert state["partialText"] == "a b "

    def test_the_text_of_an_abandoned_attempt_is_dropped(self, state_after) -> None:
        state = state_after(*QUEUED, delta(1, 0, "a "), BEGIN, ("put", prompt("queued", 1)), delta(2, 0, "A "))
        assert state["partialText"] == "A "

    def test_a_delta_of_an_unknown_prompt_fetches_the_prompt(self, state_after) -> None:
        assert state_after(delta(1, 0, "a "))["calls"] == [["unknown", 7]]


_CARD = """async (prompt) => {
    const { Cards } = await import("/static/cards.js");
    const list = document.getElementById("prompts");
    new Cards(list, () => {}).put(prompt);
    const notes = [...list.querySelectorAll(".status, .cut-off, .waiting")].filter(({ hidden }) => !hidden);
    const text = notes.map(({ textContent }) => textContent).join(" | ");
    list.replaceChildren();
    return text;
}"""


def test_a_card_says_where_its_prompt_stands_why_it_waits_and_that_its_answer_is_not_complete(
    visit: Callable[..., Visitor], url: str
) -> None:
    page = visit(url).page
    page.clock.install(time="2026-01-01T12:00:00Z")
    waiting = {
        "reason": "provider",
        "detail": "Connection refused by http://model.",
        "next_attempt_at": "2026-01-01T12:00:08Z",
    }

    def notes(status: str, **fields: Any) -> str:
        return page.evaluate(_CARD, prompt(status, **fields))

    assert notes("completed", response_text="a", finish_reason="stop") == "Answered"
    assert notes("completed", response_text="a", finish_reason="length") == "Answered | Cut off at the length limit."
    filtered = notes("completed", response_text="a", finish_reason="content_filter")
    assert filtered == "Answered | Stopped by the provider's content filter."
    places = [notes("queued", position=position) for position in (1, 2, 3, 11, 21, 112)]
    assert [place.removeprefix("Queued, ") for place in places] == [
        "next in line", "2nd in line", "3rd in line", "11th in line", "21st in line", "112th in line",
    ]  # fmt: skip
    reason = "Waiting for the provider: connection refused by http://model"
    assert notes("queued", waiting_for=waiting) == f"Queued | {reason}, next try in 8 s"
    paused = {"reason": "paused", "detail": "An operator has paused this model: upgrade", "next_attempt_at": None}
    assert notes("queued", waiting_for=paused) == "Queued | An operator has paused this model: upgrade"
    page.clock.pause_at("2026-01-01T12:00:20Z")
    assert notes("queued", waiting_for=waiting) == f"Queued | {reason}, trying again"


class TestEnds:
    @pytest.mark.parametrize("status", ["cancelled", "failed"])
    def test_what_was_written_of_an_answer_is_kept_when_its_prompt_ends_without_one(self, state_after, status: str):
        partial = (*QUEUED, delta(1, 0, "a "), BEGIN)
        for ended in (("put", prompt(status, 1, completed_at="1")), end(status, "1")):
            state = state_after(*partial, ended)
            assert (state["keptText"], state["status"], state["unfinished"]) == ("a ", status, [])
            assert state_after(*partial, ended, BEGIN, ("put", prompt(status, 1)))["keptText"] == "a "
        assert state_after(*partial, end("completed", "1", "a b"))["keptText"] is None

    def test_an_event_about_a_deletion_removes_the_prompt_for_good(self, state_after) -> None:
        steps = (*QUEUED, ("apply", {"type": "prompt.deleted", "id": 7, "seq": 1}))
        assert (state_after(*steps)["status"], state_after(*steps)["unfinished"]) == (None, [])
        assert state_after(*steps, BEGIN, ("put", prompt("queued")))["status"] is None

    def test_a_forgotten_prompt_comes_back_when_it_is_fetched(self, state_after) -> None:
        assert state_after(*QUEUED, ("forget", 7))["status"] == "queued"
        assert (state_after(*QUEUED, ("forget", 8))["unfinished"]) == []
        assert state_after(*QUEUED, ("forget", 8), BEGIN, ("put", prompt("queued")))["unfinished"] == [7]


class TestOvertaking:
    def test_a_response_to_a_request_from_before_an_event_is_ignored(self, state_after) -> None:
        state = state_after(BEGIN, end("completed", "1", "answer"), ("put", prompt("queued")))
        assert (state["status"], state["calls"]) == ("completed", [["ended", 7, "completed"]])

    def test_a_known_end_is_not_announced_again(self, state_after) -> None:
        known = ("put", prompt("cancelled", completed_at="1"))
        state = state_after(*QUEUED, BEGIN, known, end("cancelled", "1"))
        assert state["calls"] == [["ended", 7, "cancelled"]]

    def test_the_event_of_a_cancellation_does_not_undo_the_retry(self, state_after) -> None:
        cancelled, queued = ("put", prompt("cancelled", 1, completed_at="1")), ("put", prompt("queued", 1))
        state = state_after(*QUEUED, BEGIN, cancelled, BEGIN, queued, end("cancelled", "1"))
        assert state["status"] == "queued"
        state = state_after(
            *QUEUED, BEGIN, cancelled, BEGIN, queued, delta(1, 5, "late"), end("completed", "2", "answer")
        )
        assert (state["status"], state["response_text"]) == ("completed", "answer")

    def test_a_late_delta_does_not_undo_an_end(self, state_after) -> None:
        steps = (*QUEUED, delta(1, 0, "a "), end("completed", "1", "answer"))
        assert state_after(*steps, delta(1, 1, "b "))["status"] == "completed"
        # Another tab has retried the prompt.
        assert state_after(*steps, delta(2, 0, "A "))["calls"][-1] == ["unknown", 7]

    def test_a_deleted_prompt_stays_deleted(self, state_after) -> None:
        steps = (*QUEUED, BEGIN, ("remove", 7), end("completed", "1", "answer"), ("put", prompt("completed", 1)))
        assert state_after(*steps)["status"] is None

    def test_a_prompt_missing_from_the_list_was_deleted_unless_it_is_newer(self, state_after) -> None:
        other = prompt("completed", 1) | {"id": 6}
        assert state_after(*QUEUED, BEGIN, ("replace", other))["status"] is None
        assert state_after(BEGIN, end("completed", "1", "answer"), ("replace", other))["status"] == "completed"

    def test_a_response_for_the_previous_user_is_ignored(self, state_after) -> None:
        assert state_after(BEGIN, ("clear",), ("put", prompt("queued")))["status"] is None
