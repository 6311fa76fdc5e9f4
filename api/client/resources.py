"""The JSON objects that the API returns. A newer server may add fields."""

from typing import Any, Literal, NotRequired, TypedDict

Status = Literal["queued", "processing", "completed", "failed", "cancelled"]
SearchMode = Literal["vector", "text", "hybrid"]

Priority = Literal["default", "low"]

FinishReason = Literal["stop", "length", "content_filter", "tool_calls"]

Scope = Literal["prompts:read", "prompts:write", "keys:write", "admin:read", "admin"]

UsageBy = Literal["day", "model", "key"]

UNFINISHED: tuple[Status, ...] = ("queued", "processing")


class Usage(TypedDict):
    """The tokens that an answer used."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Waiting(TypedDict):
    """Why a queued prompt waits, if not only for its turn."""

    reason: str
    detail: str
    next_attempt_at: str | None


class Function(TypedDict):
    """The name of a function, and its arguments as JSON."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """A function that the model wants to be called."""

    id: str
    type: str
    function: Function


class RequestOptions(TypedDict, total=False):
    """The fields of a request other than its text. None is the same as leaving a field out."""

    model: str | None
    instructions: str | None
    messages: list[dict[str, str]] | None
    temperature: float | None
    top_p: float | None
    max_output_tokens: int | None
    stop: str | list[str] | None
    seed: int | None
    response_format: dict[str, Any] | None
    tools: list[dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    metadata: dict[str, str] | None


class PromptFilter(TypedDict, total=False):
    """A filter of prompts. Times are RFC 3339. None is the same as leaving a field out."""

    model: str | None
    metadata: dict[str, str] | None
    since: str | None
    until: str | None


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
    priority: NotRequired[Priority]
    position: NotRequired[int | None]
    waiting_for: NotRequired[Waiting | None]
    metadata: NotRequired[dict[str, str]]
    model: str | None
    provider_model: NotRequired[str | None]
    usage: Usage | None
    finish_reason: NotRequired[FinishReason | None]
    tool_calls: NotRequired[list[ToolCall] | None]
    request: NotRequired[dict[str, Any] | None]
    cached_from: int | None
    created_at: str
    completed_at: str | None
    emptied_at: str | None


class SimilarPrompt(TypedDict):
    """A completed prompt and its distance from the text searched for: 0 is the same, 4 the opposite.

    The distance is None if the prompt was found by its words alone.
    """

    id: int
    user: str
    prompt_text: str
    response_text: str
    similarity_score: float | None
    created_at: str


class ApiKey(TypedDict):
    """An API key, without the key itself. Limits that it does not have are None. Times are RFC 3339, in UTC."""

    id: int
    name: str
    prefix: str
    scopes: list[Scope]
    models: list[str] | None
    expires_at: str | None
    rate_limit: str | None
    monthly_tokens: int | None
    used_tokens: int | None
    reserved_tokens: int | None
    created_at: str
    last_used_at: str | None


class NewApiKey(ApiKey):
    """A new API key, with the key itself, which is shown only this once."""

    key: str


class UsageKey(TypedDict):
    """The API key of a row of the usage."""

    id: int
    name: str
    prefix: str


class UsageUser(TypedDict):
    """The user of a row of the usage; the name is None if the account is deleted."""

    id: int
    username: str | None


class UsageTotal(TypedDict):
    """What was used: how many prompts finished, and the tokens and cost of all attempts."""

    prompts: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost: float


class UsageRow(UsageTotal):
    """What was used on a day, of a model, with an API key, which is None for logins, or, for admins, by a user."""

    user: NotRequired[UsageUser]
    day: NotRequired[str]
    model: NotRequired[str]
    key: NotRequired[UsageKey | None]


class Budget(TypedDict):
    """A budget of tokens in a calendar month: of an API key, by its id, or of all of the user's prompts."""

    key: int | None
    monthly_tokens: int
    used_tokens: int
    reserved_tokens: int
    resets_at: str


class UsageReport(TypedDict):
    """What was used on the days from `since` to `until` (UTC), both included."""

    by: UsageBy
    since: str
    until: str
    rows: list[UsageRow]
    total: UsageTotal
    budgets: list[Budget]


class User(TypedDict):
    """A registered user."""

    id: int
    username: str
    created_at: str


class AccountKey(TypedDict):
    """The API key that the caller uses, and its limits."""

    id: int
    scopes: list[str]
    models: list[str] | None
    rate_limit: str | None
    monthly_tokens: int | None


class Account(TypedDict):
    """The account of a user, and the user's limits by the names of their settings."""

    id: int
    username: str
    is_admin: bool
    is_viewer: NotRequired[bool]
    created_at: str
    has_password: NotRequired[bool]
    authenticated_by: Literal["login", "api_key"]
    key: AccountKey | None
    limits: dict[str, str | int | None]


class LoginEntry(TypedDict):
    """A login that has not ended."""

    id: str
    created_at: str | None
    last_used_at: str | None
    expires_at: str
    address: str | None
    user_agent: str | None
    is_current: bool


class Event(TypedDict):
    """An event about a prompt.

    `prompt.completed`, `prompt.failed` and `prompt.cancelled` have the fields of the prompt; from `Client.listen` they
    also have a `seq`. There `prompt.deleted` has a `seq` and an `id`, and a `reset` only a `seq`. `Client.follow` also
    yields `prompt.delta`, which has the prompt's `id`, the `attempt`, and the next part of the answer's `text`, which
    starts at `offset`, in bytes of UTF-8; and `prompt.deleted`, which has the `id`.
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
    finish_reason: NotRequired[FinishReason | None]
    tool_calls: NotRequired[list[ToolCall] | None]
    error: NotRequired[str | None]


class Model(TypedDict):
    """A model, as OpenAI's API has it."""

    id: str
    object: str
    created: int
    owned_by: str
