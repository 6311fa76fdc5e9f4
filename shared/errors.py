"""Errors of the domain. A class's docstring is its message; `api/http/problems.py` renders it as HTTP."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime


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


class ModelNotFoundError(PromptwireError):
    """There is no such model, or this API key may not use it."""


class InvalidFieldsError(PromptwireError):
    """A field of the request is not valid."""

    def __init__(self, message: str | None = None, fields: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.fields = sorted(fields)  #: of the request's body; the message is about all of them


class UnknownModelError(InvalidFieldsError):
    """There is no such model."""


class NotSupportedError(InvalidFieldsError):
    """A model cannot do what the request asks for. It would have to ignore that, so the request is refused."""


class ContextTooLongError(InvalidFieldsError):
    """The request is longer than what the model can read (`context_tokens`)."""


class AlreadyEndedError(PromptwireError):
    """The prompt has already ended."""


class NotEndedError(PromptwireError):
    """Only a failed or a cancelled prompt can be retried."""


class PromptEmptiedError(PromptwireError):
    """The texts of this prompt were removed because of its age, so it cannot be answered again."""


class PromptFailedError(PromptwireError):
    """The prompt failed."""


class PromptCancelledError(PromptwireError):
    """The prompt was cancelled."""


class AnswerPendingError(PromptwireError):
    """The prompt has not ended yet. It will be answered."""


class AnswerRestartedError(PromptwireError):
    """An attempt failed after its text was sent in part, and the text of the next attempt differs."""


class StoppingError(PromptwireError):
    """This process is being stopped; try again."""


class UsernameTakenError(PromptwireError):
    """This username is taken."""


class UserNotFoundError(PromptwireError):
    """There is no such user."""


class LoginNotFoundError(PromptwireError):
    """There is no such login, or it has ended."""


class WrongPasswordError(PromptwireError):
    """The password is wrong."""

    def __init__(self, field: str, reason: str = "The password is wrong.") -> None:
        super().__init__("The request is not valid.")
        self.field = field  #: of the request's body
        self.reason = reason


class SignInOffError(PromptwireError):
    """This service has no identity provider to sign in with (OIDC_ISSUER)."""


class InvalidSignInCodeError(PromptwireError):
    """The sign-in has expired or was already used: sign in again."""


class AccountRequiredError(PromptwireError):
    """You have no account here, and signing in creates none; ask the operator of this service for one."""


class IdentityTakenError(PromptwireError):
    """This identity belongs to another account, or your account has another identity of this provider."""


class IdentityNotFoundError(PromptwireError):
    """You have no such identity."""


class LastSignInError(PromptwireError):
    """Without this identity you could not log in any more, because your account has no password."""


class OwnAccountError(PromptwireError):
    """Admins cannot do this to their own account, so that one is always left. Ask another admin."""


class InvalidCredentialsError(PromptwireError):
    """The username or the password is wrong."""


class InvalidTokenError(PromptwireError):
    """The token is missing, malformed, expired or revoked."""


class NotAllowedError(PromptwireError):
    """This API key may not do this."""

    scope: str | None = None  #: the missing scope, if it is that


class InsufficientScopeError(NotAllowedError):
    """This API key or login may not do this."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"This needs the scope {scope}, which this API key or login does not have.")
        self.scope = scope


class LoginRequiredError(NotAllowedError):
    """This needs a login: an API key may not do it."""


class OperationNotFoundError(PromptwireError):
    """There is no such operation."""


class CountChangedError(PromptwireError):
    """More prompts match by now than were confirmed. Count again, and confirm the new number."""


class TooManyPromptsError(InvalidFieldsError):
    """Too many prompts match. Narrow the filter, for instance by a time."""


class NotUndoableError(PromptwireError):
    """This operation is already undone."""


class KeyNotFoundError(PromptwireError):
    """There is no such API key."""


class KeyLimitError(PromptwireError):
    """You have as many API keys as a user may have."""


class IdempotencyKeyInUseError(PromptwireError):
    """A request with this Idempotency-Key is still being stored; repeat it in a moment."""


class IdempotencyKeyReusedError(PromptwireError):
    """This Idempotency-Key was used with another body within the last 24 hours."""


class OverloadedError(PromptwireError):
    """The service is overloaded; try again in a moment."""


class UserLimitError(PromptwireError):
    """This user has reached a limit. The message says which one; `limit` is the name of its setting."""

    retry_after: float = 1  #: after how many seconds a client may try again

    def __init__(self, message: str | None = None, *, limit: str = "") -> None:
        super().__init__(message)
        self.limit = limit

    @classmethod
    def kind(cls) -> str:
        """Ends in `/user-limit`, which clients look for."""
        return "urn:promptwire:problem/user-limit"


class BudgetExceededError(UserLimitError):
    """The budget of this month is used up. `resets_at` is when the next month begins."""

    def __init__(self, message: str, *, limit: str, resets_at: datetime) -> None:
        super().__init__(message, limit=limit)
        self.resets_at = resets_at
        self.retry_after = (resets_at - datetime.now(UTC)).total_seconds()

    @classmethod
    def kind(cls) -> str:
        """Ends in `/budget-exceeded`, which clients look for."""
        return "urn:promptwire:problem/budget-exceeded"


class FileNotStoredError(PromptwireError):
    """There is no such file."""


class FileInUseError(PromptwireError):
    """A batch that has not ended still reads this file."""


class BatchNotFoundError(PromptwireError):
    """There is no such batch."""


class BatchEndedError(PromptwireError):
    """The batch has already ended."""


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
    """Not all events after `since` are kept, or it is later than the newest event."""


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
