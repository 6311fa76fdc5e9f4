"""The client's errors. Each message is a sentence for people; the default message is the class's docstring."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus


class ClientError(Exception):
    """The request failed."""

    #: The seconds after which the server wants a retry, if it named any.
    retry_after: float | None = None

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)


class NotLoggedInError(ClientError):
    """Not logged in, or the login has ended. Log in again, or use an API key."""


class UnreachableError(ClientError):
    """The server cannot be reached."""

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RefusedError(ClientError):
    """The server closed the socket and does not want a reconnect; `code` is the close code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class FieldError:
    """An invalid field of a request."""

    field: str
    message: str


class ProblemError(ClientError):
    """The server answered with an error (RFC 9457).

    Attributes:
        type: a URI for the kind of error, `about:blank` if the status says enough.
        title, detail: the name of the error, and what happened.
        status: the HTTP status.
        errors: the invalid fields.
        repeated: whether the server may have carried out an earlier attempt whose response was lost.
        retry_after: the `Retry-After` header, in seconds.
    """

    def __init__(self, status: int, headers: Mapping[str, str], content: bytes, *, repeated: bool = False) -> None:
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        members = _members(found) if isinstance(found, dict) else {}
        self.status, self.repeated = status, repeated
        self.retry_after = _seconds(headers.get("Retry-After"))
        self.type = str(members.get("type", "about:blank"))
        self.title = str(members.get("title") or _phrase(status))
        self.detail = str(members.get("detail") or f"The server answered {status} ({self.title}).")
        self.errors = [FieldError(str(each.get("field")), str(each.get("message"))) for each in _errors(members)]
        super().__init__(" ".join([self.detail, *map(_sentence, self.errors)]))

    @property
    def is_temporary(self) -> bool:
        """Whether the server is too busy or broken, so that a retry may succeed."""
        return self.status == HTTPStatus.TOO_MANY_REQUESTS or self.status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _sentence(error: FieldError) -> str:
    """Most messages say what the field must be; those that begin with a capital letter are sentences of their own."""
    text = error.message if error.message[:1].isupper() else f"{error.field} {error.message}"
    return f"{text.rstrip('.')}."


def _members(found: dict[str, object]) -> dict[str, object]:
    """The members of a problem. OpenAI's API, below `/v1/`, has another shape."""
    error = found.get("error")
    if not isinstance(error, dict):
        return found
    return {"type": f"urn:promptwire:problem:{error.get('code')}", "detail": error.get("message")}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "unknown"


def _errors(members: dict[str, object]) -> list[dict[str, object]]:
    errors = members.get("errors")
    return [each for each in errors if isinstance(each, dict)] if isinstance(errors, list) else []


def _seconds(retry_after: str | None) -> float | None:
    """The seconds of a `Retry-After` header (RFC 9110, section 10.2.3), which may be a date. None if it is invalid."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
