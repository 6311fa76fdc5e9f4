"""What the command line says of answers that are not complete, and of prompts that wait for the model."""

import re
from types import SimpleNamespace
from typing import Any

import pytest

from api.client.display import show_answer, show_list
from api.client.options import Exit
from api.client.output import Output, event_line, full_text, status_line

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
        client: Any = SimpleNamespace(wait=lambda _: finished, follow=lambda _: events)
        code = show_answer(Output(False), client, lambda: finished, not follow, follow, full_text)
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
