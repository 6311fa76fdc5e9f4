"""Errors of a sign-in with the identity provider.

The user's browser gets only the `code`, which the page explains. The message is for the log: it says what to change,
and contains no secret.
"""


class SignInError(Exception):
    """A sign-in failed."""

    code = "failed"


class ProviderUnavailableError(SignInError):
    """The identity provider cannot be reached, is too slow, or its response does not follow the standard."""

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
