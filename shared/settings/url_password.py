"""The password of a URL, given apart from it."""

import re
from urllib.parse import quote

from pydantic import SecretStr, ValidationInfo

_LOGIN = re.compile(r"(?P<scheme>[^:/?#]+://)(?P<user>[^:@/?#]*)(?P<password>:[^@/?#]*)?(?P<at>@)?")


def with_password(url: str, password: str) -> str:
    """Insert a password, quoted, into a URL that has none. Any other text is returned as it is.

    Without a user in the URL, the password stands alone: `redis://:password@host`.
    """
    found = _LOGIN.match(url)
    if not password or found is None or (found["at"] and found["password"]):
        return url
    user, rest = (found["user"], url[found.end() :]) if found["at"] else ("", url[found.end("scheme") :])
    return f"{found['scheme']}{user}:{quote(password, safe='')}@{rest}"


def with_password_setting(url: SecretStr, info: ValidationInfo, setting: str) -> str:
    """Insert the password of a setting that was validated before the URL."""
    password: SecretStr | None = info.data.get(setting)
    return with_password(url.get_secret_value(), "" if password is None else password.get_secret_value())
