"""Usernames and passwords in their normal forms, by PRECIS (RFC 8264, RFC 8265).

One name can be typed in several ways: in another case, in fullwidth letters, with decomposed characters. So can a
password: keyboards differ in how they compose `é`. Normalised, all of these are equal.

Normalising takes time that is quadratic in the length of some texts, so it comes after the check of the length.
"""

import re
from functools import cache

from precis_i18n import get_profile
from precis_i18n.profile import Profile

MAX_USERNAME_LENGTH = 150
#: What a name may be. `.` and `..` have a meaning in paths.
USERNAME_PATTERN = r"^(\.{0,2}[A-Za-z0-9_-]|\.{3})[A-Za-z0-9_.-]*$"
MIN_PASSWORD_LENGTH = 8
MAX_PASSWORD_LENGTH = 1024

_USERNAME_RULE = 'Usernames use letters, digits, "_", "." and "-" (up to 150), and are not "." or "..".'
_PASSWORD_RULE = f"Passwords have {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters."
_CHARACTER_RULE = "Passwords may not contain control characters, invisible characters or unassigned ones."


def new_username(username: str) -> str:
    """The normal form of a new name: UsernameCasePreserved, which keeps the case.

    Raises:
        ValueError: it is not allowed. The message is for people.
    """
    normalised = _normalised_username(username)
    if normalised is None or not re.fullmatch(USERNAME_PATTERN, normalised):
        raise ValueError(_USERNAME_RULE)
    return normalised


def fold(username: str) -> str:
    """What all ways to write a name have in common: its normal form in lower case.

    A text that cannot be a name is only lowered.
    """
    return (_normalised_username(username) or username).lower()


def new_password(password: str) -> str:
    """The normal form of a new password: OpaqueString.

    Raises:
        ValueError: it is not allowed. The message is for people.
    """
    if not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH:
        raise ValueError(_PASSWORD_RULE)
    normalised = _normalise("OpaqueString", password)
    if normalised is None:
        raise ValueError(_CHARACTER_RULE)
    if len(normalised) < MIN_PASSWORD_LENGTH:
        raise ValueError(_PASSWORD_RULE)
    return normalised


def password_forms(password: str) -> list[str]:
    """What to try at a login: the normal form, then the password as it was typed, if that is different.

    Hashes of releases that did not normalise are of what was typed. So are those of passwords without a normal form.
    """
    normalised = _normalise("OpaqueString", password) if len(password) <= MAX_PASSWORD_LENGTH else None
    return [password] if normalised in (None, password) else [str(normalised), password]


def _normalised_username(username: str) -> str | None:
    return _normalise("UsernameCasePreserved", username) if len(username) <= MAX_USERNAME_LENGTH else None


def _normalise(profile: str, text: str) -> str | None:
    """The text by a profile of PRECIS; None if the profile does not allow it."""
    if re.fullmatch("[!-~]+", text):  # both allow all of these
        return text
    try:
        return _profile(profile).enforce(text)
    except ValueError:  # UnicodeEncodeError is one
        return None


@cache
def _profile(name: str) -> Profile:
    return get_profile(name)
