"""What the page makes of events and answers that overtake each other: `prompts.js`, alone, in a browser."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.browser import Visitor

_RUN = """async (steps) => {
    const { Prompts } = await import("/static/prompts.js");
    const told = [];
    const prompts = new Prompts({
        changed: () => {},
        ended: ({ id, status }) => told.push(["ended", id, status]),
        unknown: (id) => told.push(["unknown", id]),
    });
    let began = 0;
    for (const [name, ...given] of steps) {
        if (name === "begin") began = prompts.time;
        else if (name === "put") prompts.put(given, began);
        else if (name === "replace") prompts.replace(given, began, true);
        else if (name === "hear") prompts.hear(given[0]);
        else prompts[name](...given);
    }
    const { status, arrived, hasGap, response_text } = prompts.get(7) ?? {};
    return { status, arrived, hasGap, response_text, told };
}"""

BEGIN = ("begin",)


def prompt(status: str, attempt: int = 0, **fields: Any) -> dict[str, Any]:
    known = {"id": 7, "prompt_text": "?", "response_text": None, "completed_at": None, "created_at": "2026-01-01"}
    return known | {"status": status, "attempt": attempt} | fields


def delta(attempt: int, index: int, text: str) -> tuple[str, dict[str, Any]]:
    return "hear", {"type": "prompt.delta", "id": 7, "attempt": attempt, "index": index, "text": text}


def ending(status: str, at: str, response_text: str | None = None) -> tuple[str, dict[str, Any]]:
    fields = {"type": f"prompt.{status}", "seq": 1, "completed_at": at, "response_text": response_text}
    return "hear", prompt(status, **fields)


@pytest.fixture
def after(visit: Callable[..., Visitor], url: str) -> Callable[..., dict[str, Any]]:
    page = visit(url).page
    return lambda *steps: page.evaluate(_RUN, [list(step) for step in steps])


QUEUED = (BEGIN, ("put", prompt("queued")))


class TestTextThatArrives:
    def test_is_put_together(self, after) -> None:
        seen = after(*QUEUED, delta(1, 0, "a "), delta(1, 1, "b "))
        assert (seen["status"], seen["arrived"], seen["hasGap"]) == ("processing", "a b ", False)

    def test_a_part_that_comes_twice_is_shown_once(self, after) -> None:
        assert after(*QUEUED, delta(1, 0, "a "), delta(1, 0, "a "))["arrived"] == "a "

    def test_after_a_gap_there_is_an_ellipsis_until_the_end(self, after) -> None:
        seen = after(*QUEUED, delta(1, 0, "a "), delta(1, 2, "c "), delta(1, 3, "d "))
        assert (seen["arrived"], seen["hasGap"]) == ("a ", True)
        seen = after(*QUEUED, delta(1, 2, "c "), ending("completed", "1", "a b c d"))
        assert (seen["response_text"], seen["hasGap"]) == ("a b c d", False)

    def test_a_later_attempt_begins_anew_and_an_earlier_one_is_over(self, after) -> None:
        seen = after(*QUEUED, delta(1, 0, "a "), delta(1, 2, "c "), delta(2, 0, "A "), delta(1, 3, "d "))
        assert (seen["arrived"], seen["hasGap"]) == ("A ", False)

    def test_a_look_at_the_list_does_not_lose_it(self, after) -> None:
        seen = after(*QUEUED, delta(1, 0, "a "), BEGIN, ("put", prompt("processing", 1)), delta(1, 1, "b "))
        assert seen["arrived"] == "a b "

    def test_of_an_attempt_that_was_given_up_it_is_dropped(self, after) -> None:
        seen = after(*QUEUED, delta(1, 0, "a "), BEGIN, ("put", prompt("queued", 1)), delta(2, 0, "A "))
        assert seen["arrived"] == "A "

    def test_of_an_unknown_prompt_has_it_looked_up(self, after) -> None:
        assert after(delta(1, 0, "a "))["told"] == [["unknown", 7]]


class TestWhatOvertakes:
    def test_an_answer_that_began_before_an_event_is_passed_over(self, after) -> None:
        seen = after(BEGIN, ending("completed", "1", "answer"), ("put", prompt("queued")))
        assert (seen["status"], seen["told"]) == ("completed", [["ended", 7, "completed"]])

    def test_an_end_that_is_known_is_no_news(self, after) -> None:
        known = ("put", prompt("cancelled", completed_at="1"))
        seen = after(*QUEUED, BEGIN, known, ending("cancelled", "1"))
        assert seen["told"] == [["ended", 7, "cancelled"]]

    def test_the_event_of_a_cancellation_does_not_undo_the_retry(self, after) -> None:
        cancelled, queued = ("put", prompt("cancelled", 1, completed_at="1")), ("put", prompt("queued", 1))
        seen = after(*QUEUED, BEGIN, cancelled, BEGIN, queued, ending("cancelled", "1"))
        assert seen["status"] == "queued"
        seen = after(*QUEUED, BEGIN, cancelled, BEGIN, queued, delta(1, 5, "late"), ending("completed", "2", "answer"))
        assert (seen["status"], seen["response_text"]) == ("completed", "answer")

    def test_late_text_does_not_undo_an_end(self, after) -> None:
        steps = (*QUEUED, delta(1, 0, "a "), ending("completed", "1", "answer"))
        assert after(*steps, delta(1, 1, "b "))["status"] == "completed"
        # A later attempt is one that another tab has asked for.
        assert after(*steps, delta(2, 0, "A "))["told"][-1] == ["unknown", 7]

    def test_what_was_deleted_stays_so(self, after) -> None:
        steps = (*QUEUED, BEGIN, ("remove", 7), ending("completed", "1", "answer"), ("put", prompt("completed", 1)))
        assert after(*steps)["status"] is None

    def test_what_is_not_in_the_list_any_more_was_deleted_elsewhere_unless_it_is_newer(self, after) -> None:
        other = prompt("completed", 1) | {"id": 6}
        assert after(*QUEUED, BEGIN, ("replace", other))["status"] is None
        assert after(BEGIN, ending("completed", "1", "answer"), ("replace", other))["status"] == "completed"

    def test_an_answer_from_before_another_user_came_is_passed_over(self, after) -> None:
        assert after(BEGIN, ("clear",), ("put", prompt("queued")))["status"] is None
