"""The user's own account: its password, its logins, its export and its deletion."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import cast

from .http import json_list, json_object, not_promptwire, reading
from .resources import Account, LoginEntry, Prompt
from .session import Session

#: A healthy server sends the next part of an export within this time.
_EXPORT_TIMEOUT_SECONDS = 60.0


class AccountClient:
    """The account of the user who is logged in. Methods raise the errors of `Client`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def show(self) -> Account:
        """Return the account, and the limits of its user."""
        response = self._session.request("GET", "/account/")
        return cast(Account, json_object(response, "id", "username", "limits"))

    def change_password(self, current: str, new: str) -> None:
        """Change the password. All other logins end; API keys stay. Raises ProblemError (400) if `current` is wrong."""
        body = {"current_password": current, "password": new}
        # Once it is changed, the current password is wrong. So it is not repeated after a lost response.
        self._session.request("POST", "/account/password/", json=body, idempotent=False)

    def logins(self) -> list[LoginEntry]:
        """Return the logins that have not ended, the last used first; at most 100."""
        response = self._session.request("GET", "/account/logins/")
        return cast(list[LoginEntry], json_list(response, "id", "is_current"))

    def end_login(self, login_id: str) -> None:
        """End a login. Raises ProblemError (404) if there is none with this id."""
        self._session.delete(f"/account/logins/{login_id}/")

    def export(self) -> Iterator[Prompt]:
        """Yield all prompts with all of their fields, oldest first."""
        for line in self.export_lines():
            yield cast(Prompt, json.loads(line))

    def export_lines(self) -> Iterator[bytes]:
        """Yield the JSON of each prompt, oldest first, with a line feed at the end.

        Raises:
            UnreachableError: the export was interrupted, so prompts are missing. It is not repeated.
        """
        opened = self._session.request("GET", "/account/export/", stream_timeout=_EXPORT_TIMEOUT_SECONDS)
        rest = b""
        with closing(opened) as response, reading("The export"):
            if not response.headers.get("Content-Type", "").startswith("application/x-ndjson"):
                raise not_promptwire(response)
            for part in response.iter_bytes():
                # Not `splitlines`: JSON may contain other line separators than the line feed.
                *lines, rest = (rest + part).split(b"\n")
                yield from (line + b"\n" for line in lines)

    def delete(self, password: str) -> None:
        """Delete the account and all that belongs to it, for good. Raises ProblemError (400) for a wrong password."""
        self._session.request("DELETE", "/account/", json={"password": password}, idempotent=False)
        self._session.forget()
