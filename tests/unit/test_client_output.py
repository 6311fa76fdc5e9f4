"""What the command line says of answers that are not complete, and of prompts that wait for the model."""

import re
from types import SimpleNamespace
from typing import Any

import pytest

from api.client.display import show_answer, show_list
from api.client.options import Exit, Options
from api.client.output import Output, event_line, full_text, status_line
from api.client.usage_table import usage_text

CUT_OFF = "Cut off at the length limit."
FILTERED = "Stopped by the provider's content filter."
WAITING = {"reason": "provider", "detail": "Connection refused.", "next_attempt_at": "2026-11-23T09:30:04.000Z"}


def prompt(**fields: Any) -> Any:
    known = {
        "id": 7,
        "prompt_text": "the prompt",
        "response_text": "the answer",
        "status": "completed",
        "attempt": 1,
        "error": None,
        "cached_from": None,
        "created_at": "2026-11-23T09:30:00.000Z",
        "completed_at": None,
        "emptied_at": None,
    }
    return known | fields


REASONS = pytest.mark.parametrize(
    ("reason", "note"), [("length", CUT_OFF), ("content_filter", FILTERED), ("stop", ""), (None, "")]
)


class TestToolCalls:
    CALLS = {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "get", "arguments": '{"a": 1}'}}]}

    @pytest.mark.parametrize("follow", [False, True], ids=["--wait", "--follow"])
    def test_an_answer_without_text_shows_its_tool_calls(
        self, capsys: pytest.CaptureFixture[str], follow: bool
    ) -> None:
        finished = prompt(response_text="", finish_reason="tool_calls", **self.CALLS)
        ended = [{"type": "prompt.completed", **finished}]
        client: Any = SimpleNamespace(wait=lambda _: finished, follow=lambda _: ended, show=lambda _: finished)
        assert show_answer(Options(), client, lambda: finished, not follow, follow, full_text) == Exit.OK
        assert capsys.readouterr().out == 'get({"a": 1})\n'
        assert full_text(finished).endswith('\n\nget({"a": 1})')


class TestCutOffAnswers:
    @REASONS
    @pytest.mark.parametrize("follow", [False, True], ids=["--wait", "--follow"])
    def test_a_note_on_stderr_says_that_the_answer_is_not_complete(
        self, capsys: pytest.CaptureFixture[str], reason: str | None, note: str, follow: bool
    ) -> None:
        finished = prompt(finish_reason=reason)
        events = [
            {"type": "prompt.delta", "id": 7, "attempt": 1, "text": "the answer"},
            {"type": "prompt.completed", **finished},
        ]
        client: Any = SimpleNamespace(wait=lambda _: finished, follow=lambda _: events, show=lambda _: finished)
        code = show_answer(Options(), client, lambda: finished, not follow, follow, full_text)
        written = capsys.readouterr()
        assert (code, written.out) == (Exit.OK, "the answer\n")
        sentence = f"The answer to prompt 7 is not complete: {note[:1].lower()}{note[1:]}\n"
        assert written.err == (sentence if note else "")

    @REASONS
    def test_show_list_and_listen_mark_the_prompt(
        self, capsys: pytest.CaptureFixture[str], reason: str | None, note: str
    ) -> None:
        finished = prompt(finish_reason=reason)
        for text in (full_text(finished), event_line(finished | {"type": "prompt.completed", "seq": 1})):
            assert [each for each in (CUT_OFF, FILTERED) if each in text] == ([note] if note else [])
        show_list(Output(False), [finished])
        _, row = capsys.readouterr().out.splitlines()
        assert re.split("  +", row)[1] == (f"completed ({reason})" if note else "completed")

    def test_a_server_of_an_earlier_version_sends_no_finish_reason(self, capsys: pytest.CaptureFixture[str]) -> None:
        show_list(Output(False), [prompt()])
        assert "completed  " in capsys.readouterr().out
        assert "answer " not in full_text(prompt()).partition("\n\n")[0]


class TestWaitingPrompts:
    def test_the_reason_and_the_next_attempt_are_shown(self, capsys: pytest.CaptureFixture[str]) -> None:
        queued = prompt(status="queued", response_text=None, waiting_for=WAITING)
        for text in (full_text(queued), status_line(queued)):
            assert "Connection refused. Next attempt at 2026-11-23 " in text
        show_list(Output(False), [queued, queued | {"id": 6}])
        written = capsys.readouterr()
        assert written.err.count("Queued prompts wait for the model: Connection refused. Next attempt at") == 1
        assert "Connection refused" not in written.out

    def test_json_output_is_not_mixed_with_notes(self, capsys: pytest.CaptureFixture[str]) -> None:
        show_list(Output(True), [prompt(status="queued", waiting_for=WAITING)])
        assert len(capsys.readouterr().out.splitlines()) == 1


def test_an_emptied_prompt_says_why_it_has_no_texts() -> None:
    emptied = prompt(prompt_text="", response_text=None, emptied_at="2026-12-23T09:30:00.000Z")
    assert full_text(emptied).splitlines()[-1].split(maxsplit=1) == ["texts", "removed because of its age"]
    assert "texts" not in full_text(prompt())


def used(prompts: int, tokens_in: int, tokens_out: int, cost: float, **group: object) -> Any:
    total = tokens_in + tokens_out
    sums = {"prompts": prompts, "prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": total}
    return {**group, **sums, "cost": cost}


class TestUsage:
    TOTAL = used(12, 1_234, 56_789, 12.5)

    def text(self, by: str, rows: list[Any], budgets: list[Any] | None = None) -> list[str]:
        period = {"since": "2026-11-01", "until": "2026-11-30"}
        return usage_text({"by": by, **period, "rows": rows, "total": self.TOTAL, "budgets": budgets or []}).split("\n")

    def test_usage_is_a_table_with_a_total(self) -> None:
        rows = [used(2, 234, 89, 0.5, day="2026-11-01"), used(10, 1_000, 56_700, 12.0, day="2026-11-02")]
        assert self.text("day", rows) == [
            "DAY         PROMPTS  TOKENS IN  TOKENS OUT     COST",
            "2026-11-01        2        234          89   0.5000",
            "2026-11-02       10      1,000      56,700  12.0000",
            "TOTAL            12      1,234      56,789  12.5000",
        ]

    def test_keys_are_named_and_control_characters_are_not_printed(self) -> None:
        key = {"id": 1, "name": "nightly\n\x1b[31m", "prefix": "pw_3kTz9Qx1"}
        _, first, second, _ = self.text("key", [used(1, 1, 1, 0, key=None), used(1, 1, 1, 0, key=key)])
        assert first.startswith("(logins)  ")
        assert second.startswith("nightly �[31m (pw_3kTz9Qx1…)  ")

    def test_budgets_stand_below_the_table(self) -> None:
        state = {"monthly_tokens": 100_000, "used_tokens": 4_600, "reserved_tokens": 0}
        resets_at = "2026-12-01T00:00:00.000Z"
        budgets = [{"key": key, "resets_at": resets_at, **state} for key in (None, 7)]
        *_, blank, own, of_key = self.text("model", [used(1, 1, 1, 0, model="default")], budgets)
        assert blank == ""
        assert own.startswith("Your budget: 4,600 of 100,000 tokens used, 0 reserved. It begins again at 20")
        assert of_key.startswith("The budget of API key 7: 4,600 of")
