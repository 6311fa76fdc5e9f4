"""Collects the tool calls of an answer: streamed in pieces, whole, or as the `function_call` of OpenAI's first API."""

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from shared.errors import ProviderError
from shared.providers.openai_errors import unexpected_response
from shared.providers.surrogates import Joiner

MAX_CALLS = 128  # OpenAI's limit of tools
MAX_BYTES = 1024 * 1024  # of all names and arguments
#: The place of a `function_call`, of which an answer has one.
_LEGACY = "function_call"


class _Call:
    """One call, as far as it has come."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self._pieces: list[str] = []
        self._length = 0

    @property
    def arguments(self) -> str:
        return "".join(self._pieces)

    def is_another(self, call_id: str, name: str, arguments: str) -> bool:
        """Whether a piece begins another call, though it has the same index or none.

        Some servers repeat the name with each piece, others send a new id with each, but no name.
        """
        if not name or not self.name:
            return False
        if call_id and self.id:
            return call_id != self.id
        return bool(arguments or name != self.name) and self._is_whole

    def add(self, call_id: str, name: str, arguments: str) -> None:
        self.id = self.id or call_id
        if name and not self._pieces:  # a piece of the name, or all of it so far
            self.name = name if name.startswith(self.name) else self.name + name
        is_repeated = len(arguments) == self._length and arguments == self.arguments and self._is_whole
        if arguments and not is_repeated:
            self._pieces.append(arguments)
            self._length += len(arguments)

    @property
    def _is_whole(self) -> bool:
        return bool(self._pieces) and self._pieces[-1].rstrip().endswith("}") and _is_object(self.arguments)


class ToolCalls:
    """The calls of one answer, in the order in which they began.

    Pieces belong to the call with their index. Servers that send whole calls leave the index out, or send the same one
    for all calls.
    """

    def __init__(self) -> None:
        self._forget()

    def __bool__(self) -> bool:
        return bool(self._calls)

    def read(self, message: Mapping[str, Any], *, is_whole: bool) -> None:
        """Add the calls of a delta, or take those of a whole message instead of all that came before.

        Raises:
            ProviderError: they are not calls of functions, too many or too long.
        """
        calls = list(_calls_of(message))
        if is_whole and calls:
            self._forget()
        for place, call in calls:
            self._read_call(place, call)

    def end(self, *, is_cut: bool) -> list[dict[str, Any]]:
        """The calls as chat completions have them. Each has an id, although some servers send none.

        Args:
            is_cut: Whether the answer reached its limit of tokens, so that its last call may lack its end. It is left
                out then.

        Raises:
            ProviderError: the arguments of a call are not a JSON object, or it has no name.
        """
        ended: dict[str, dict[str, Any]] = {}
        for number, call in enumerate(self._calls, 1):
            arguments = _joined(call.arguments).strip() or "{}"
            if not call.name or not _is_object(arguments):
                if is_cut and number == len(self._calls):
                    break
                raise ProviderError(_malformed(call.name, arguments))
            call_id = call.id if call.id and call.id not in ended else f"call_{uuid.uuid4().hex[:24]}"
            function = {"name": call.name, "arguments": arguments}
            ended[call_id] = {"id": call_id, "type": "function", "function": function}
        return list(ended.values())

    def _forget(self) -> None:
        self._calls: list[_Call] = []
        self._latest: dict[str, _Call] = {}  # by index
        self._bytes = 0

    def _read_call(self, place: Any, given: Any) -> None:
        if not isinstance(given, dict):
            raise unexpected_response("a tool call is not an object")
        function = given.get("function") or {}
        if given.get("type") not in (None, "", "function") or not isinstance(function, dict):
            raise unexpected_response("it calls a tool that is not a function")
        name, arguments = function.get("name") or "", function.get("arguments") or ""
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments, ensure_ascii=False)
        piece = (given.get("id") or "", name, arguments)
        if not all(isinstance(each, str) for each in piece):
            raise unexpected_response("a tool call does not consist of texts")
        self._bytes += len((name + arguments).encode(errors="replace"))
        if self._bytes > MAX_BYTES:
            raise ProviderError(f"The model's tool calls have more than {MAX_BYTES} bytes.", retryable=False)
        places = (place, given.get("index"), function.get("index"))
        self._find(next((each for each in places if each is not None), None), piece).add(*piece)

    def _find(self, place: Any, piece: tuple[str, str, str]) -> _Call:
        """The call that a piece belongs to; a new one if it begins one."""
        latest = self._calls[-1] if place is None and self._calls else self._latest.get(str(place))
        if latest is None or latest.is_another(*piece):
            if len(self._calls) == MAX_CALLS:
                raise ProviderError(f"The model called more than {MAX_CALLS} tools.")
            latest = _Call()
            self._calls.append(latest)
        self._latest[str(place)] = latest
        return latest


def _calls_of(message: Mapping[str, Any]) -> Iterator[tuple[str | None, Any]]:
    """Yield the calls of a message, and the place of each if that has a name."""
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise unexpected_response("its tool calls are not a list")
    yield from ((None, call) for call in calls)
    if function := message.get(_LEGACY):
        yield _LEGACY, {"function": function}


def _joined(text: str) -> str:
    """The text without characters that pieces have cut in two."""
    joiner = Joiner()
    return joiner.join(text) + joiner.flush()


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _malformed(name: str, arguments: str) -> str:
    if not name:
        return "The model called a tool without its name."
    return f"The model called a tool with arguments that are not a JSON object: {name}: {_quote(arguments)}."


def _quote(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:99]}…")
