"""The replies that the server of `openai_server.py` can give to a request."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

WORDS = ("Tides ", "come ", "and ", "go.")


class Gate:
    """Holds chunks back until the test releases them."""

    def __init__(self) -> None:
        self._permits = threading.Semaphore(0)
        self._is_open = threading.Event()

    def release(self, chunks: int = 1) -> None:
        self._permits.release(chunks)

    def open(self) -> None:
        """Let all chunks pass from now on."""
        self._is_open.set()

    def passes(self, seconds: float) -> bool:
        """Wait for a chunk's turn. Returns False after this time."""
        return self._is_open.is_set() or self._permits.acquire(timeout=seconds)


@dataclass(frozen=True)
class Reply:
    """The reply to one request.

    With a `status` other than 200 the body is `body`, or an error in OpenAI's format with `message` and `code`.
    """

    chunks: Sequence[str] = WORDS
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "Something is wrong"
    code: str | None = None
    body: str | None = None  #: the literal body; if Content-Length says more, the rest never comes
    slow: float = 0  #: seconds before the first byte of the response
    pause: float = 0  #: seconds before each chunk except the first
    gate: Gate | None = None  #: each chunk waits for it
    #: What follows the chunks: a regular end; the end of the body without a finish_reason; a closed connection; a reset
    #: connection; nothing; a line of invalid JSON; an error event.
    then: Literal["finish", "stop", "close", "reset", "hang", "garbage", "error"] = "finish"
    finish_reason: str = "stop"
    usage: Literal["own chunk", "last chunk", "none"] = "own chunk"
    key: Literal["content", "refusal"] = "content"
    #: Calls of tools after the chunks, as chat completions have them. Streamed, their arguments come in two pieces.
    tool_calls: Sequence[dict[str, Any]] = ()


def some_words(count: int | str) -> tuple[str, ...]:
    """Return `count` chunks: "w0 ", "w1 " …"""
    return tuple(f"w{i} " for i in range(int(count)))


#: Commands, which are the first word of a prompt, and their replies given the words after it.
COMMANDS: dict[str, Callable[..., Reply]] = {
    "say": lambda count, pause="0": Reply(some_words(count), pause=float(pause)),
    "slow": lambda seconds: Reply(slow=float(seconds)),
    "busy": lambda seconds: Reply(status=429, headers={"Retry-After": seconds}, message="Rate limit reached"),
    "fail": lambda status="500": Reply(status=int(status)),
    "refuse": lambda *_: Reply(status=400, message="This model has no vision", code="invalid_request_error"),
    "forbid": lambda *_: Reply(status=401, code="invalid_api_key"),
    "stop": lambda count: Reply(some_words(count), then="stop"),
    "close": lambda count: Reply(some_words(count), then="close"),
    "reset": lambda count: Reply(some_words(count), then="reset"),
    "hang": lambda count: Reply(some_words(count), then="hang"),
    "garbage": lambda count="2": Reply(some_words(count), then="garbage"),
    "error": lambda count="2": Reply(some_words(count), then="error"),
    "page": lambda *_: Reply(body="<html>It works!</html>", headers={"Content-Type": "text/html"}),
}


def commanded(words: Sequence[str]) -> Reply:
    """Return the reply that a prompt of these words asks for; a regular answer if they are not a command."""
    return COMMANDS[words[0]](*words[1:]) if words and words[0] in COMMANDS else Reply()
