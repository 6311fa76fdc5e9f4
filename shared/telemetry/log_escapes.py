"""Escaping characters that would forge log lines, or control the terminal that shows them.

Text from outside may contain line separators, terminal sequences, and marks that reverse the direction of text. They
are escaped as in a Python string: `\\n`, `\\x1b`, `\\u2028`. The line feeds between a traceback's lines and the colours
of the console are kept.
"""

import io
import json
import re
import traceback
from collections.abc import Iterator, MutableMapping
from typing import Any

from pydantic_core import to_json
from structlog.typing import ExcInfo

# C0, DEL and C1; line and paragraph separators; marks of direction; surrogates, which UTF-8 cannot encode.
_UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_ALL = re.compile(f"[{_UNSAFE}]")
_ALL_BUT_NEWLINES = re.compile(f"(?!\n)[{_UNSAFE}]")


def escape(text: str) -> str:
    """Escape the line separators and control characters of a text."""
    return text if text.isprintable() and text.isascii() else _ALL.sub(_escaped, text)


def escape_values(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape keys and values, as a structlog processor before the console's renderer."""
    return {escape(str(key)): _escape_value(key, value) for key, value in event.items()}


def write_traceback(output: Any, exc_info: ExcInfo) -> None:
    """Write a traceback, as an exception formatter for structlog's console renderer."""
    output.write("\n" + format_traceback(exc_info))


def format_traceback(exc_info: ExcInfo) -> str:
    """Format a traceback as Python prints it, but with escaped messages."""
    found = traceback.TracebackException(*exc_info)
    for each in _linked_exceptions(found):
        # What `format` prints of a message, of its notes, and of a SyntaxError. Tests check that this is all.
        for name in ("_str", "msg", "text", "filename"):
            if isinstance(value := getattr(each, name, None), str):
                setattr(each, name, escape(value.rstrip("\n")))
        notes = each.__notes__
        each.__notes__ = [escape(str(note)) for note in notes] if isinstance(notes, list | tuple) else None
    text = io.StringIO()
    text.writelines(found.format())
    return _ALL_BUT_NEWLINES.sub(_escaped, text.getvalue()).rstrip("\n")


def render_json(event: dict[str, Any], **_: Any) -> str:
    """Render an event as one line of JSON, with the same characters escaped as JSON escapes."""
    try:
        text = to_json(event, fallback=repr).decode()
    except ValueError:  # a surrogate, or a value that is not UTF-8
        text = json.dumps({str(key): value if isinstance(value, str) else repr(value) for key, value in event.items()})
    return text if text.isascii() and text.isprintable() else _ALL.sub(_json_escaped, text)


def _escape_value(key: str, value: Any) -> Any:
    if key == "exc_info":  # the renderer formats it, with `write_traceback`
        return value
    text = value if isinstance(value, str) else repr(value)
    return _ALL_BUT_NEWLINES.sub(_escaped, text) if key == "stack" else escape(text)


def _linked_exceptions(error: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """The exception, its causes and contexts, and the members of exception groups."""
    waiting, seen = [error], set()
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            waiting += [one for one in (each.__cause__, each.__context__, *(each.exceptions or ())) if one is not None]
            yield each


def _escaped(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]


def _json_escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
