"""The output of the commands: results go to stdout, as text or as JSON lines; everything else goes to stderr."""

import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import TypeVar

import click
from rich.cells import cell_len, set_cell_size
from rich.console import Console

from .resources import Event, Prompt

Resource = TypeVar("Resource", bound=Mapping[str, object])

#: Control characters, which a terminal may execute. Texts are not trusted.
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: The notes on incomplete answers, by finish reason.
_CUT_OFF = {
    "length": "Cut off at the length limit.",
    "content_filter": "Stopped by the provider's content filter.",
}
#: To how many cells a column may be cut.
_MIN_COLUMN = 8
_BROKEN_PIPE = 141  # the exit code that a shell reports for SIGPIPE


class Output:
    """Prints results, as JSON or as text, and progress if stderr is a terminal."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.stderr = Console(stderr=True, highlight=False, markup=False)

    def result(self, resource: Mapping[str, object], text: str) -> None:
        """Print a resource or an event: as a line of JSON, or this text."""
        self._write(f"{to_json(resource) if self.as_json else printable(text)}\n")

    def results(
        self, resources: Iterable[Resource], header: Sequence[str], row: Callable[[Resource], Sequence[str]]
    ) -> None:
        """Print resources: as lines of JSON, or as rows of a table."""
        if self.as_json:
            for resource in resources:
                self._write(f"{to_json(resource)}\n")
        else:
            self._write("".join(f"{line}\n" for line in table([header, *map(row, resources)], _width())))

    def lines(self, lines: Iterable[bytes]) -> None:
        """Print lines as they are."""
        for line in lines:
            self._write(line)

    def text(self, text: str) -> None:
        """Print a part of a text."""
        self._write(printable(text))

    def note(self, text: str) -> None:
        """Print a message to stderr."""
        self.stderr.print(printable(text), soft_wrap=True)

    def hint(self, text: str) -> None:
        """Print a message to stderr if it is a terminal."""
        if self.stderr.is_terminal:
            self.note(text)

    @property
    def is_interactive(self) -> bool:
        """Whether stderr is a terminal that can show progress."""
        return self.stderr.is_terminal and not self.stderr.is_dumb_terminal

    def progress(self, message: str) -> AbstractContextManager[object]:
        """Show a spinner with this message until the block ends, if stderr is a terminal."""
        if not self.is_interactive:
            return nullcontext()
        return self.stderr.status(printable(message))

    def show_retries(self) -> None:
        """Print the log messages of the client, which announce retries."""
        handler = logging.Handler()
        handler.emit = lambda record: self.note(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger(__package__).addHandler(handler)

    def _write(self, text: str | bytes) -> None:
        try:
            click.echo(text, nl=False)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's flush at exit succeeds
            sys.exit(_BROKEN_PIPE)


def to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def printable(text: str) -> str:
    """Replace the control characters of a text."""
    return _CONTROL_CHARACTERS.sub("�", text)


def one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def table(rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Align rows in terminal cells. If the width is limited, the widest columns are cut."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    if width is not None:
        _fit(widths, width)
    lines = []
    for *cells, last in rows:
        *sizes, rest = widths
        start = "".join(f"{_pad(cell, size)}  " for cell, size in zip(cells, sizes, strict=True))
        lines.append(start + shorten(last, rest))
    return lines


def _fit(widths: list[int], width: int) -> None:
    """Make the widest columns narrower until a row fits. The first one, mostly an id, stays whole."""
    while sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max(range(1, len(widths)), key=widths.__getitem__, default=0)
        if widest == 0 or widths[widest] <= _MIN_COLUMN:
            return
        widths[widest] -= 1


def _pad(text: str, width: int) -> str:
    return set_cell_size(shorten(text, width), width)


def shorten(text: str, width: int) -> str:
    """Cut a text to a width in terminal cells."""
    return text if cell_len(text) <= width else f"{set_cell_size(text, width - 1).rstrip()}…"


def event_line(event: Event) -> str:
    """Describe the event of a finished or deleted prompt on one line, as wide as the terminal."""
    outcome = answer_text(event) or event.get("error") or ""
    prompt = one_line(event.get("prompt_text", ""))
    note = cut_off_note(event.get("finish_reason"))
    prompt = f"[{note}] {prompt}" if note else prompt
    status = event.get("status") or event["type"].rpartition(".")[2]
    line = f"{event['seq']:>5}  {status:<9}  {event['id']:>5}  {prompt}".rstrip()
    line = f"{line} → {one_line(outcome)}" if outcome else line
    width = _width()
    return line if width is None else shorten(line, width)


def answer_text(answered: Prompt | Event) -> str:
    """The answer: its text, and a line for each function that the model wants to be called."""
    calls = [
        f"{call['function']['name']}({call['function']['arguments']})" for call in answered.get("tool_calls") or ()
    ]
    return "\n".join(filter(None, (answered.get("response_text"), *calls)))


def full_text(prompt: Prompt) -> str:
    """Describe a prompt in full."""
    fields = {
        "prompt": str(prompt["id"]),
        "status": prompt["status"],
        "answer": cut_off_note(prompt.get("finish_reason")),
        "position": str(prompt.get("position") or ""),
        "waiting for": waiting_reason(prompt),
        "metadata": ", ".join(f"{key}={value}" for key, value in (prompt.get("metadata") or {}).items()),
        "priority": "low" if prompt.get("priority") == "low" else "",
        "attempts": str(prompt["attempt"]),
        "submitted": local_time(prompt["created_at"]),
        "finished": local_time(prompt["completed_at"]) if prompt["completed_at"] else "",
        "cached from": str(prompt["cached_from"] or ""),
        "texts": "removed because of its age" if prompt.get("emptied_at") else "",
        "error": prompt["error"] or "",
    }
    lines = [f"{name:<11}  {value}" for name, value in fields.items() if value]
    texts = [text for text in (prompt["prompt_text"], answer_text(prompt)) if text]
    return "\n\n".join(["\n".join(lines), *texts])


def status_line(prompt: Prompt) -> str:
    """Describe the status of a submitted prompt."""
    position, reason = prompt.get("position"), waiting_reason(prompt)
    line = f"Prompt {prompt['id']} is {prompt['status']}{f', at position {position}' if position else ''}."
    return f"{line} It waits for the model: {reason}" if reason else line


def cut_off_note(finish_reason: str | None) -> str:
    """Say that an answer is not complete; empty if it is, or if that is not known."""
    return _CUT_OFF.get(finish_reason or "", "")


def waiting_reason(prompt: Prompt) -> str:
    """Why the prompt waits, if not only for its turn, and the time of the next attempt; empty if it does not."""
    waiting = prompt.get("waiting_for")
    if not waiting:
        return ""
    next_attempt_at = waiting["next_attempt_at"]
    next_attempt = f" Next attempt at {local_time(next_attempt_at)}." if next_attempt_at else ""
    return one_line(waiting["detail"]) + next_attempt


def local_time(rfc3339: str) -> str:
    return datetime.fromisoformat(rfc3339).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _width() -> int | None:
    """The width of the terminal; None if stdout is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
