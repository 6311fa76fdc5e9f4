"""What the command line waits for: time limits, the progress line and events; and how tables fit a terminal."""

import io
import json
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from websockets.sync.server import ServerConnection

from api.client.__main__ import run
from api.client.errors import UnreachableError
from api.client.options import Exit
from api.client.output import Output, event_line, table
from api.client.progress import ProgressLine, describe, duration, ordinal, progress_line
from api.client.time_limit import TimeLimitReached, time_limit
from tests.support.room_server import room_server
from tests.support.servers import MAX_WAIT_SECONDS, wait_until
from tests.support.stub_api import Answer, StubApi

KEY = f"pw_{'a' * 43}"
QUEUED: dict[str, Any] = {"id": 7, "status": "queued", "attempt": 0, "error": None, "position": 3}
NOW = datetime(2026, 11, 30, 9, 30, tzinfo=UTC)


@pytest.fixture
def promptwire(stub: StubApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run a command line in this process, as its entry point does."""
    monkeypatch.setenv("PROMPTWIRE_API_KEY", KEY)
    monkeypatch.setenv("PROMPTWIRE_URL", stub.url)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def command(text: str) -> Exit:
        monkeypatch.setattr("sys.argv", ["promptwire", *shlex.split(text)])
        return run()

    return command


def test_a_response_of_another_shape_is_not_taken_for_a_failed_prompt(
    stub: StubApi, promptwire: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answers = [Answer(200, {"id": 7, "status": "queued"})]
    assert promptwire("show 7") == Exit.FAULT
    assert "KeyError" in capsys.readouterr().err


class TestTimeLimits:
    """The server never finishes the prompt."""

    SILENT = Answer(200, "", {"Content-Type": "text/event-stream", "Content-Length": "9"}, then_silent=True)

    @pytest.mark.parametrize(
        ("arguments", "answers"),
        [
            ("submit Hi --wait", [Answer(202, QUEUED), Answer(200, QUEUED)]),
            ("show 7 --wait", [Answer(200, QUEUED)]),
            ("show 7 --follow", [Answer(200, QUEUED), SILENT]),
            ("retry 7 --wait", [Answer(202, QUEUED), Answer(200, QUEUED)]),
        ],
    )
    def test_timeout_limits_what_a_command_waits_for(
        self,
        stub: StubApi,
        promptwire: Any,
        capsys: pytest.CaptureFixture[str],
        arguments: str,
        answers: list[Answer],
    ) -> None:
        stub.answers = list(answers)
        assert promptwire(f"{arguments} --timeout 0.3") == Exit.TIMED_OUT
        written = capsys.readouterr()
        way = "--follow" if "--follow" in arguments else "--wait"
        assert written.out == ""
        assert written.err == f"Prompt 7 has not ended: `promptwire show 7 {way}` waits for it again.\n"

    @pytest.mark.parametrize(
        ("arguments", "resource", "says"),
        [
            (
                "batch wait batch_1",
                {"status": "in_progress", "request_counts": {"total": 0, "completed": 0, "failed": 0}},
                "The batch has not ended: `promptwire batch wait batch_1` waits for it again.\n",
            ),
            (
                "admin operation 3 --wait",
                {"status": "running", "changed": 0, "skipped": 0, "total": 5},
                "The operation continues. `promptwire admin undo 3` stops it.\n",
            ),
        ],
    )
    def test_timeout_limits_the_wait_for_the_end(
        self,
        stub: StubApi,
        promptwire: Any,
        capsys: pytest.CaptureFixture[str],
        arguments: str,
        resource: dict[str, Any],
        says: str,
    ) -> None:
        stub.answers = [Answer(200, {"id": "batch_1"} | resource)]
        assert promptwire(f"{arguments} --timeout 0.3") == Exit.TIMED_OUT
        assert capsys.readouterr().err == says

    EXPORT = Answer(
        200, '{"id": 1}\n', {"Content-Type": "application/x-ndjson", "Content-Length": "99"}, then_silent=True
    )

    @pytest.mark.parametrize(
        ("arguments", "answer", "says"),
        [
            ("export --output all.jsonl", EXPORT, "Error: The command took longer than --timeout allows.\n"),
            ("files download file-1 all.jsonl", EXPORT, "Error: The command took longer than --timeout allows.\n"),
            ("login --browser", Answer(200, {"name": "Example"}), "longer than --timeout allows.\n"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_timeout_limits_every_command(
        self,
        stub: StubApi,
        promptwire: Any,
        monkeypatch: pytest.MonkeyPatch,
        exports: Path,
        capsys: pytest.CaptureFixture[str],
        arguments: str,
        answer: Answer,
        says: str,
    ) -> None:
        monkeypatch.setattr("webbrowser.open", lambda _: True)
        # The limit of the command alone, however slow a request is.
        monkeypatch.setattr("api.client.options._GRACE_SECONDS", 0.5 - MAX_WAIT_SECONDS)
        stub.answers = [answer]
        assert promptwire(f"{arguments} --timeout {MAX_WAIT_SECONDS}") == Exit.TIMED_OUT
        assert capsys.readouterr().err.endswith(says)
        # What was there is only replaced by what is complete.
        assert [file.read_text() for file in exports.glob("all.jsonl*")] == ["the last export"]

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ("export --output all.jsonl", "Error: The export was interrupted, and is not complete ("),
            ("files download file-1 all.jsonl", "Error: The download was interrupted, and is not complete ("),
        ],
    )
    def test_a_file_is_only_replaced_by_a_complete_one(
        self,
        stub: StubApi,
        promptwire: Any,
        exports: Path,
        capsys: pytest.CaptureFixture[str],
        arguments: str,
        says: str,
    ) -> None:
        stub.answers = [replace(self.EXPORT, then_silent=False)]
        assert promptwire(arguments) == Exit.UNREACHABLE
        assert capsys.readouterr().err.startswith(says)
        assert [file.read_text() for file in exports.glob("all.jsonl*")] == ["the last export"]

    def test_a_request_without_an_answer_says_so_itself(
        self, stub: StubApi, promptwire: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("api.client.options._GRACE_SECONDS", MAX_WAIT_SECONDS)
        stub.answers = [Answer(200, "", {"Content-Length": "9"}, then_silent=True)]
        assert promptwire("show 7 --timeout 0.2") == Exit.UNREACHABLE
        assert "cannot be reached" in capsys.readouterr().err

    def test_limits_can_be_nested(self) -> None:
        with time_limit(time.monotonic() + 3_600):
            with pytest.raises(TimeLimitReached), time_limit(time.monotonic()):
                threading.Event().wait(MAX_WAIT_SECONDS)
            assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 3_600
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)

    def test_a_wait_within_the_timeout_ends_as_usual(self, stub: StubApi, promptwire: Any) -> None:
        stub.answers = [Answer(200, QUEUED), Answer(200, QUEUED | {"status": "completed", "response_text": "yes"})]
        assert promptwire(f"show 7 --wait --timeout {MAX_WAIT_SECONDS}") == Exit.OK
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)

    def test_a_deadline_in_the_past_ends_the_block_at_once(self) -> None:
        with pytest.raises(TimeLimitReached), time_limit(time.monotonic() - 1):
            threading.Event().wait(MAX_WAIT_SECONDS)


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The current folder, with an earlier export in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "all.jsonl").write_text("the last export")
    return tmp_path


@contextmanager
def room(*events: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """A room that sends these events and then nothing. Yields its URL, and the paths that were opened."""
    paths: list[str] = []

    def handle(socket: ServerConnection) -> None:
        paths.append(socket.request.path)
        for event in ({"type": "connected", "seq": 0}, *events):
            socket.send(json.dumps(event))
        list(socket)  # until it is closed

    with room_server(handle) as url:
        yield url, paths


class TestListening:
    def test_listen_shows_prompts_from_anywhere_and_deletions_until_the_timeout(
        self, monkeypatch: pytest.MonkeyPatch, promptwire: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("api.client.session.Session.username", "alice")
        deleted = {"type": "prompt.deleted", "seq": 2, "id": 7, "deleted_at": "2026-11-30T09:30:00.000Z"}
        finished = {"type": "prompt.completed", "seq": 1, "id": 7, "status": "completed", "prompt_text": "Hi"}
        with room(finished, deleted) as (url, paths):
            assert promptwire(f"listen --url {url} --limit 2 --since 0") == Exit.OK
            assert paths == ["/ws/prompts/alice/?since=0&all=true"]
            assert capsys.readouterr().out == "    1  completed      7  Hi\n    2  deleted        7\n"
            assert promptwire(f"listen --url {url} --limit 3 --timeout 0.5") == Exit.TIMED_OUT

    def test_a_batch_that_has_ended_is_named(self) -> None:
        event: Any = {"type": "batch.completed", "seq": 3, "id": "batch_12", "status": "completed"}
        assert event_line(event) == "    3  completed  batch_12"


PAUSED = {"reason": "paused", "detail": "An operator has paused this model.", "next_attempt_at": None}


def waiting(seconds: float) -> dict[str, str]:
    at = datetime.fromtimestamp(NOW.timestamp() + seconds, UTC).isoformat()
    return {"reason": "provider", "detail": "Connection refused.", "next_attempt_at": at}


class TestProgress:
    @pytest.mark.parametrize(
        ("state", "text"),
        [
            ({"position": 1}, "next in line"),
            ({"position": 3}, "3rd in line"),
            ({"position": 1_012}, "1,012th in line"),
            ({"position": None}, "waits for its turn"),
            ({"waiting_for": waiting(8)}, "waiting for the provider: connection refused, next try in 8 s"),
            ({"waiting_for": waiting(125)}, "waiting for the provider: connection refused, next try in 2:05 min"),
            ({"waiting_for": PAUSED}, "An operator has paused this model"),
            ({"waiting_for": waiting(-1)}, "waiting for the provider: connection refused, next try now"),
            ({"status": "processing", "position": None, "attempt": 1}, "being answered"),
            ({"status": "processing", "position": None, "attempt": 2}, "being answered, 2nd attempt"),
            ({"status": "failed", "position": None}, "failed"),
        ],
    )
    def test_the_line_says_what_the_prompt_waits_for(self, state: dict[str, Any], text: str) -> None:
        prompt: Any = QUEUED | state
        assert describe(prompt, NOW) == text

    def test_ordinals_and_durations(self) -> None:
        assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 112)] == [
            "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "112th",
        ]  # fmt: skip
        assert [duration(s) for s in (0, 59, 60, 3_725)] == ["0 s", "59 s", "1:00 min", "1:02:05 h"]

    def test_a_terminal_shows_the_line_and_how_it_changes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("api.client.progress._POLL_SECONDS", 0.01)
        output, screen = Output(False), io.StringIO()
        output.stderr = Console(file=screen, force_terminal=True, width=60, color_system=None)

        def read(_: int) -> Any:
            if "0 s  Prompt 7: 1,234th in line" not in screen.getvalue():
                raise UnreachableError
            return QUEUED | {"position": 2}

        first: Any = QUEUED | {"position": 1_234}
        with progress_line(output, first, read):
            wait_until(lambda: "2nd in line" in screen.getvalue(), what="the new position")

    def test_a_long_line_is_cut_at_the_width_of_the_terminal(self) -> None:
        screen = io.StringIO()
        prompt: Any = QUEUED | {"waiting_for": waiting(8) | {"detail": "x\x1b[2J" * 100}}
        Console(file=screen, width=60).print(ProgressLine(prompt))
        (line,) = screen.getvalue().splitlines()
        assert len(line) == 60
        assert line.endswith("…")
        assert "\x1b" not in line

    def test_nothing_is_shown_or_read_without_a_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        prompt: Any = QUEUED
        threads = threading.active_count()
        with progress_line(Output(False), prompt, lambda _: pytest.fail("must not be called")) as stop:
            assert threading.active_count() == threads
            stop()
        assert capsys.readouterr() == ("", "")


class TestTables:
    def test_the_widest_columns_are_cut_until_a_row_fits_and_ids_stay_whole(self) -> None:
        rows = [
            ("ID", "SCOPES", "NAME"),
            ("0123456789abcdef", "prompts:read prompts:write keys:write", "nightly report"),
        ]
        lines = table(rows, 50)
        assert {len(line) for line in lines} <= set(range(51))
        assert lines[1].startswith("0123456789abcdef  prompts:read")
        assert lines[1].endswith("  nightly report")

    def test_a_terminal_that_is_too_narrow_keeps_some_of_each_column(self) -> None:
        assert table([("a" * 9, "b" * 20, "c" * 20)], 10) == [f"{'a' * 9}  {'b' * 7}…  {'c' * 7}…"]
