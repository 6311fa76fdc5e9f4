"""Reads a stream of JSON: server-sent events, lines of JSON, or one JSON document, whatever the server calls it.

Server-sent events are read as the HTML standard says (https://html.spec.whatwg.org/multipage/server-sent-events.html,
9.2.5 and 9.2.6), and more tolerantly where servers are sloppy: a `data` line that is a complete object is an event at
once, so that the blank line after it may be missing; the last event of a stream counts without one; a line of JSON
without `data:` counts, too.
"""

import json
from contextlib import suppress
from typing import Any, NamedTuple

from pydantic_core import from_json

MAX_EVENT_BYTES = 8 * 1024 * 1024
_LINE_OVERHEAD = 64  # bytes that each stored line costs, so that many short ones are bounded, too
_NO_JSON = "sent something that is not JSON"
_BOM = b"\xef\xbb\xbf"
#: Names of events that say nothing, whatever their data.
_KEEP_ALIVES = frozenset({"ping", "heartbeat", "keepalive", "keep-alive"})
_DONE_MARKS = frozenset({b"[DONE]", b'"[DONE]"', b"[done]", b"DONE"})


class MalformedStreamError(Exception):
    """What the server sends is not a stream of JSON. The message goes on after "The provider"."""


class Done:
    """The payload of the event `[DONE]`."""


DONE = Done()


class Event(NamedTuple):
    #: Its JSON, DONE, or the text of an event named `error` that is not JSON.
    payload: Any
    name: str = ""
    is_document: bool = False  #: whether it is not an event of a stream but JSON by itself


class EventReader:
    """Turns the bytes of a response, cut anywhere, into events. Lines end with LF, CR LF or CR."""

    def __init__(self) -> None:
        self._events: list[Event] = []  # since the last call
        self._tail = bytearray()  # of an unfinished line
        self._stored_size = 0
        self._skips_lf = False
        self._is_first_line = True
        self._has_events = self._has_other_lines = False
        self._name = ""
        self._data: list[bytes] = []
        self._document: list[bytes] | None = None
        self._document_try = 0  # the size from which on the document may be whole
        self.failure: MalformedStreamError | None = None

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that these bytes complete.

        `failure` is set, and nothing more is read, if an event is not JSON or is longer than MAX_EVENT_BYTES, or if the
        body is a web page.
        """
        if self._is_first_line or self._tail or self._data or self._name or self._document or self._skips_lf:
            return self._feed_any(data)
        if data.startswith(b"data: {") and data.endswith(b"}\n\n") and data.count(b"\n") == 2:  # almost always
            with suppress(ValueError):
                event = Event(from_json(data[6:-2], cache_strings="keys"))
                self._has_events = True
                return [event]
        return self._feed_any(data)

    def _feed_any(self, data: bytes) -> list[Event]:
        if self._skips_lf and data:
            data, self._skips_lf = data.removeprefix(b"\n"), False
        if b"\r" in data:
            self._skips_lf = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = data.split(b"\n")
        if lines and self._tail:
            lines[0] = bytes(self._tail) + lines[0]
            self._tail = bytearray()
        try:
            for line in lines:
                self._read_line(line)
            if rest:
                self._tail += rest
                self._check_size()
        except MalformedStreamError as error:
            self.failure = error
        return self._taken()

    def close(self) -> list[Event]:
        """Return the events that the end of the body completes. Sets `failure` as `feed` does."""
        try:
            if self._tail:
                self._read_line(bytes(self._tail))
            self._end_event()
            if self._document is not None:
                self._found(_parse_or_refuse(b"\n".join(self._document)), is_document=True)
        except MalformedStreamError as error:
            self.failure = error
        if self._has_other_lines and not self._has_events:
            self.failure = MalformedStreamError(_NO_JSON)
        return self._taken()

    def _read_line(self, line: bytes) -> None:
        if self._is_first_line:
            line, self._is_first_line = line.removeprefix(_BOM), False
        if self._document is not None:
            self._continue_document(self._document, line)
        elif line.startswith(b"data:"):
            self._read_data(line[5:])
        elif not line:
            self._end_event()
        elif line.lstrip()[:1] in (b"{", b"["):
            self._read_json(line)
        elif line.lstrip()[:1] == b"<" and not self._has_events:
            raise MalformedStreamError("sent a web page instead of an answer")
        elif not line.startswith(b":"):
            self._read_field(line)

    def _read_data(self, line: bytes) -> None:
        line, value = line.removeprefix(b" "), line.strip(b" \t\0")
        while value.startswith(b"data:"):  # some proxies wrap events once more
            line = value = value[5:].lstrip()
        if not value:
            return
        if not self._data:
            payload = DONE if value in _DONE_MARKS else _parse(value)
            if payload is not _NOT_JSON:
                self._found(payload)
                return
        self._data.append(line)
        self._store(line)

    def _read_json(self, line: bytes) -> None:
        payload = _parse(line)
        if payload is not _NOT_JSON:
            self._found(payload, is_document=True)
        elif self._has_events:
            raise MalformedStreamError(_NO_JSON)
        else:
            self._document = [line]
            self._store(line)

    def _continue_document(self, lines: list[bytes], line: bytes) -> None:
        lines.append(line)
        self._store(line)
        if line.startswith((b"}", b"]")) and self._stored_size >= self._document_try:  # its end, as it is indented
            payload = _parse(b"\n".join(lines))
            if payload is not _NOT_JSON:
                self._document, self._stored_size = None, 0
                self._found(payload, is_document=True)
            self._document_try = 2 * self._stored_size

    def _read_field(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        text = value.strip().decode(errors="replace")
        if field == b"event":
            self._name = text
        elif field == b"error":  # llama.cpp's server sends errors like this
            payload = _parse(value)
            self._events.append(Event(text if payload is _NOT_JSON else payload, "error"))
        elif field not in (b"data", b"id", b"retry"):
            self._has_other_lines = True

    def _end_event(self) -> None:
        """Find what the stored lines of data are: one JSON text in several lines, or one in each of them."""
        if not self._data:
            self._name = ""
            return
        lines, self._data, self._stored_size = self._data, [], 0
        payload = _parse(b"\n".join(lines))
        if payload is not _NOT_JSON:
            self._found(payload)
        elif self._name == "error" or self._name in _KEEP_ALIVES:
            self._found(b"\n".join(lines).decode(errors="replace"))
        else:
            for line in lines:
                self._found(DONE if line.strip() in _DONE_MARKS else _parse_or_refuse(line))

    def _found(self, payload: Any, *, is_document: bool = False) -> None:
        self._has_events = True
        if self._name not in _KEEP_ALIVES:
            self._events.append(Event(payload, self._name, is_document))
        self._name = ""

    def _taken(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _store(self, line: bytes) -> None:
        self._stored_size += len(line) + _LINE_OVERHEAD
        self._check_size()

    def _check_size(self) -> None:
        if len(self._tail) + self._stored_size > MAX_EVENT_BYTES:
            raise MalformedStreamError(f"sent an event of more than {MAX_EVENT_BYTES:,} bytes")


_NOT_JSON = object()


def _parse(data: bytes) -> Any:
    """Return the value of a JSON text, or _NOT_JSON.

    Half a surrogate pair, and bytes that are not UTF-8, become lone surrogates, which `surrogates.py` joins again.
    """
    try:
        return from_json(data, cache_strings="keys")
    except ValueError:
        pass
    try:
        return json.loads(data.strip(b" \t\r\n\0").decode(errors="surrogateescape"), strict=False)
    except (ValueError, RecursionError):
        return _NOT_JSON


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON text, read as tolerantly as events; None if it is none."""
    payload = _parse(data)
    return None if payload is _NOT_JSON else payload


def _parse_or_refuse(data: bytes) -> Any:
    payload = _parse(data)
    if payload is _NOT_JSON:
        raise MalformedStreamError(_NO_JSON)
    return payload
