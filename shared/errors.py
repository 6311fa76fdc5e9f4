"""Errors of the domain. A class's docstring is its message; `api/http/problems.py` renders it as HTTP."""

import re


class PromptwireError(Exception):
    """An error of Promptwire."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)

    @classmethod
    def kind(cls) -> str:
        """The URI of this kind of error, from the class's name."""
        name = re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__.removesuffix("Error")).lower()
        return f"urn:promptwire:problem:{name}"


class PromptNotFoundError(PromptwireError):
    """There is no such prompt."""


class AlreadyEndedError(PromptwireError):
    """The prompt has already ended."""


class NotEndedError(PromptwireError):
    """Only a failed or a cancelled prompt can be retried."""


class UsernameTakenError(PromptwireError):
    """This username is taken."""


class UserNotFoundError(PromptwireError):
    """There is no such user."""


class InvalidCredentialsError(PromptwireError):
    """The username or the password is wrong."""


class InvalidTokenError(PromptwireError):
    """The token is missing, malformed, expired or revoked."""


class InsufficientScopeError(PromptwireError):
    """This API key or login may not do this."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"This needs the scope {scope}, which this API key or login does not have.")
        self.scope = scope


class LoginRequiredError(PromptwireError):
    """This needs a login: an API key may not do it."""


class IdempotencyKeyInUseError(PromptwireError):
    """A request with this Idempotency-Key is still being stored; repeat it in a moment."""


class IdempotencyKeyReusedError(PromptwireError):
    """This Idempotency-Key was used with another body within the last 24 hours."""


class OverloadedError(PromptwireError):
    """The service is overloaded; try again in a moment."""


class UserLimitError(PromptwireError):
    """This user has reached a limit. The message says which one; `limit` is the name of its setting."""

    retry_after = 1  #: after how many seconds a client may try again

    def __init__(self, message: str | None = None, *, limit: str = "") -> None:
        super().__init__(message)
        self.limit = limit

    @classmethod
    def kind(cls) -> str:
        """Ends in `/user-limit`, which clients look for."""
        return "urn:promptwire:problem/user-limit"


class WebhookNotFoundError(PromptwireError):
    """There is no such webhook."""


class WebhookDisabledError(PromptwireError):
    """This webhook is disabled. Enable it first."""


class TooManyWebhooksError(PromptwireError):
    """A user may not have more webhooks. Delete one first."""


class DeliveryNotFoundError(PromptwireError):
    """There is no such delivery. Old ones are not kept."""


class DeliveryPendingError(PromptwireError):
    """This delivery is pending: it has not ended yet."""


class EventNotKeptError(PromptwireError):
    """There is nothing left to send: the prompt of this event was deleted, or the event is too old."""


class SinceOutOfRangeError(PromptwireError):
    """The events after `since` are not all there: it is too old, or later than the newest event."""


class ProviderError(PromptwireError):
    """The provider failed.

    Raised by generators and embedders. The message is shown to the user, so it must hold no secret.
    `retryable` says whether another attempt could succeed.
    """

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class ProviderUnavailableError(ProviderError):
    """The provider is unavailable.

    It cannot be reached, or refuses because of its load. The prompt is not the cause, so the attempt does not count.
    `retry_after` is how many seconds the provider asks callers to wait, if it does.
    """

    cause = "unavailable"  #: the label of the metric `promptwire_provider_pauses_total`

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ProviderOverloadedError(ProviderUnavailableError):
    """The provider refuses because of its load (429, 503, 529): fewer requests at a time may succeed."""

    cause = "overloaded"

    @classmethod
    def kind(cls) -> str:
        """The kind of its parent: for clients of the API both are the same."""
        return ProviderUnavailableError.kind()
