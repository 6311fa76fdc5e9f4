"""Why a sign-in with the identity provider fails.

The user's browser learns only the `code`, which the page explains. The message is for the log: it says what to change,
and has no secret.
"""


class SignInError(Exception):
    """A sign-in failed."""

    code = "failed"


class ProviderUnavailableError(SignInError):
    """The identity provider cannot be reached, is too slow, or its answer is not what the standard says."""

    code = "provider-unavailable"


class InvalidIdTokenError(SignInError):
    """The identity provider's ID token is not valid, so nobody is signed in."""

    code = "invalid-response"


class RefusedByProviderError(SignInError):
    """The identity provider has refused, or the user has cancelled there."""

    code = "refused"


class ExpiredSignInError(SignInError):
    """The sign-in took too long, or was started by another browser."""

    code = "expired"


class NotPermittedError(SignInError):
    """The user may not sign in here."""

    code = "not-permitted"
