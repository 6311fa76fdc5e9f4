"""Errors of the local stack."""


class CannotStartError(Exception):
    """The stack cannot start; the message says why and what to do."""


class FolderInUseError(CannotStartError):
    """Another stack runs on the data folder."""
