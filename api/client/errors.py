"""What can go wrong. A message is a sentence to show to a person; a class's docstring is the one it has by default."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus


class ClientError(Exception):
    """Something is not as it should be."""

    #: In how many seconds the server wants to be asked again, if it says so.
    retry_after: float | None = None

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)


class NotLoggedInError(ClientError):
    """Not logged in, or the login has ended."""


class UnreachableError(ClientError):
    """The server cannot be reached."""

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RefusedError(ClientError):
    """The server has closed the socket for good; `code` is why."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field of a request."""

    field: str
    message: str


class ProblemError(ClientError):
    """An answer that is an error (RFC 9457).

    Attributes:
        type: a URI that says which kind of error it is, `about:blank` if its status says all.
        title, detail: its name, and what happened.
        status: the HTTP status.
        errors: what is wrong with which field.
        repeated: whether an earlier try of the same request may have been carried out, its answer being lost.
        retry_after: the seconds of the `Retry-After` header.
    """

    def __init__(self, status: int, headers: Mapping[str, str], content: bytes, *, repeated: bool = False) -> None:
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        members = found if isinstance(found, dict) else {}
        self.status, self.repeated = status, repeated
        self.retry_after = _seconds(headers.get("Retry-After"))
        self.type = str(members.get("type", "about:blank"))
        self.title = str(members.get("title") or _phrase(status))
        self.detail = str(members.get("detail") or f"The server answered {status} ({self.title}).")
        self.errors = [FieldError(str(each.get("field")), str(each.get("message"))) for each in _errors(members)]
        super().__init__(" ".join([self.detail, *(f"{each.field}: {each.message}." for each in self.errors)]))

    @property
    def may_pass(self) -> bool:
        """Whether the server is only too busy, or broken."""
        return self.status == HTTPStatus.TOO_MANY_REQUESTS or self.status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "unknown"


def _errors(members: dict[str, object]) -> list[dict[str, object]]:
    errors = members.get("errors")
    return [each for each in errors if isinstance(each, dict)] if isinstance(errors, list) else []


def _seconds(retry_after: str | None) -> float | None:
    """What `Retry-After` says (RFC 9110, section 10.2.3): seconds, or a date. None if it says nothing."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
