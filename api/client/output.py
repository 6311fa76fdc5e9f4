"""What the commands show: results on stdout, for people or as JSON lines; all else on stderr."""

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

R = TypeVar("R", bound=Mapping[str, object])

#: What a terminal could take for a command. Texts come from anywhere.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_READER_IS_GONE = 141  # as a shell has it of a program that SIGPIPE ended


class Output:
    """Shows results, `as_json` or for people, and on a terminal that something goes on."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._progress = Console(stderr=True, highlight=False, markup=False)

    def result(self, resource: Mapping[str, object], text: str) -> None:
        """A resource or an event: a line of JSON, or this text."""
        self._write(f"{to_json(resource) if self.as_json else printable(text)}\n")

    def results(self, resources: Iterable[R], head: Sequence[str], row: Callable[[R], Sequence[str]]) -> None:
        """Resources: lines of JSON, or the rows of a table."""
        if self.as_json:
            for resource in resources:
                self._write(f"{to_json(resource)}\n")
        else:
            self._write("".join(f"{line}\n" for line in table([head, *map(row, resources)], _width())))

    def text(self, text: str) -> None:
        """A part of a text, for people."""
        self._write(printable(text))

    def note(self, text: str) -> None:
        """Something besides the result, for people."""
        self._progress.print(printable(text), soft_wrap=True)

    def hint(self, text: str) -> None:
        """Something that only somebody at a terminal wants to know."""
        if self._progress.is_terminal:
            self.note(text)

    def working(self, what: str) -> AbstractContextManager[object]:
        """On a terminal shows what goes on, until the block ends."""
        if not self._progress.is_terminal or self._progress.is_dumb_terminal:
            return nullcontext()
        return self._progress.status(printable(what))

    def show_retries(self) -> None:
        """Shows what the client logs: that it tries again."""
        handler = logging.Handler()
        handler.emit = lambda record: self.note(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger(__package__).addHandler(handler)

    def _write(self, text: str) -> None:
        try:
            click.echo(text, nl=False)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor shall Python's last flush fail
            sys.exit(_READER_IS_GONE)


def to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def printable(text: str) -> str:
    """A text without what a terminal could take for a command."""
    return _CONTROLS.sub("�", text)


def on_one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def table(rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Aligned lines, in terminal cells. The last column takes what is left of the width, if that is limited."""
    *widths, _ = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for *cells, last in rows:
        start = "".join(f"{set_cell_size(cell, size)}  " for cell, size in zip(cells, widths, strict=True))
        lines.append(start + (last if width is None else shortened(last, max(10, width - cell_len(start)))))
    return lines


def shortened(text: str, width: int) -> str:
    """The text in so many terminal cells."""
    return text if cell_len(text) <= width else f"{set_cell_size(text, width - 1).rstrip()}…"


def ending(event: Event) -> str:
    """The event of an ending, on one line, as wide as the terminal."""
    said = event.get("response_text") or event.get("error") or ""
    prompt = on_one_line(event.get("prompt_text", ""))
    shown = f"{event['seq']:>5}  {event.get('status', ''):<9}  {event['id']:>5}  {prompt}"
    shown = f"{shown} → {on_one_line(said)}" if said else shown
    width = _width()
    return shown if width is None else shortened(shown, width)


def in_full(prompt: Prompt) -> str:
    """Everything about a prompt."""
    fields = {
        "prompt": str(prompt["id"]),
        "status": prompt["status"],
        "attempts": str(prompt["attempt"]),
        "submitted": local_time(prompt["created_at"]),
        "ended": local_time(prompt["completed_at"]) if prompt["completed_at"] else "",
        "answer of": str(prompt["cached_from"] or ""),
        "error": prompt["error"] or "",
    }
    lines = [f"{name:<9}  {value}" for name, value in fields.items() if value]
    texts = [text for text in (prompt["prompt_text"], prompt["response_text"]) if text]
    return "\n\n".join(["\n".join(lines), *texts])


def is_queued(prompt: Prompt) -> str:
    """What is said of a prompt that was submitted."""
    return f"Prompt {prompt['id']} is {prompt['status']}."


def local_time(rfc3339: str) -> str:
    return datetime.fromisoformat(rfc3339).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _width() -> int | None:
    """The terminal's, None where output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
