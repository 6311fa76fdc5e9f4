"""What the API answers with, as it comes: JSON objects. A newer server may add fields."""

from typing import Literal, NotRequired, TypedDict

Status = Literal["queued", "processing", "completed", "failed", "cancelled"]

UNFINISHED: tuple[Status, ...] = ("queued", "processing")


class Usage(TypedDict):
    """What an answer took, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Prompt(TypedDict):
    """A prompt. Times are RFC 3339, in UTC."""

    id: int
    user: str
    prompt_text: str
    response_text: str | None
    status: Status
    websocket: bool
    attempt: int
    error: str | None
    history: int
    model: str | None
    usage: Usage | None
    cached_from: int | None
    created_at: str
    completed_at: str | None


class SimilarPrompt(TypedDict):
    """A completed prompt, and how far it is from the text that was looked for: 0 the same, 4 opposite."""

    id: int
    user: str
    prompt_text: str
    response_text: str
    similarity_score: float
    created_at: str


class User(TypedDict):
    """Somebody who is registered."""

    id: int
    username: str
    created_at: str


class Event(TypedDict):
    """What is told of prompts.

    `prompt.completed`, `prompt.failed` and `prompt.cancelled` have the fields of the prompt; in a room also a `seq`,
    where a `reset` has only that. Who follows a prompt is told `prompt.delta` with its `id`, an `attempt` and further
    `text` of the answer, which begins at `offset`, in bytes of UTF-8; and `prompt.deleted`, with its `id`.
    """

    type: str
    seq: NotRequired[int]
    id: NotRequired[int]
    attempt: NotRequired[int]
    offset: NotRequired[int]
    text: NotRequired[str]
    status: NotRequired[Status]
    prompt_text: NotRequired[str]
    response_text: NotRequired[str | None]
    error: NotRequired[str | None]
