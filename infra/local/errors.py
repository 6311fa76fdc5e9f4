"""What keeps the local stack from starting."""


class CannotStartError(Exception):
    """The message is one sentence that says what to do."""
