"""A cache of verified access tokens and API keys, so that most requests need no query.

When a login ends or a key is revoked, Redis notifies every API process, which drops the user's tokens within
milliseconds. If that message is lost, `EndedLogins` finds it in the database within a second. If it cannot ask, all
tokens expire from the cache after LIFETIME_SECONDS.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Collection

from sqlalchemy import Engine

from api.auth.principal import Principal
from shared.accounts import api_keys, logins
from shared.db.engine import Executor

LIFETIME_SECONDS = 10.0
MAX_TOKENS = 20_000


def is_alive(engine: Engine, principal: Principal) -> bool:
    """Whether the caller's login or API key is still valid, according to the database."""
    if time.time() >= principal.expires_at:
        return False
    if principal.key is None and principal.family is None:  # an open room
        return True
    with engine.connect() as connection:
        return is_live(connection, principal)


def is_live(executor: Executor, principal: Principal) -> bool:
    """Whether the caller's login or API key has not ended."""
    if principal.key is not None:
        return api_keys.is_live(executor, principal.key.id)
    return principal.family is not None and logins.find_user(executor, principal.family) is not None


class TokenCache:
    """Maps tokens to their principals. When it is full, the oldest entry goes."""

    def __init__(self, *, max_tokens: int = MAX_TOKENS) -> None:
        self._max_tokens = max_tokens
        self._principals: OrderedDict[str, Principal] = OrderedDict()
        self._valid_until = 0.0
        self._version = 0
        self._lock = threading.Lock()

    @property
    def version(self) -> int:
        """Changes whenever a login or a key ends. Read it before the database, and pass it to `remember`."""
        return self._version

    @property
    def is_checked(self) -> bool:
        """Whether the database was asked for ended logins so recently that cached tokens are valid."""
        return time.monotonic() < self._valid_until

    def find(self, token: str) -> Principal | None:
        """The principal of a cached token that is still valid."""
        principal = self._principals.get(token)
        if principal is None or time.monotonic() >= self._valid_until or time.time() >= principal.expires_at:
            return None
        return principal

    def remember(self, token: str, principal: Principal, version: int) -> None:
        """Cache a verified token, unless a login or a key has ended since this version."""
        with self._lock:
            if version == self._version:
                self._principals[token] = principal
                self._principals.move_to_end(token)
                if len(self._principals) > self._max_tokens:
                    self._principals.popitem(last=False)

    def forget(self, user_ids: Collection[int]) -> None:
        """Drop the tokens of these users, because a login or a key of theirs has ended."""
        with self._lock:
            self._version += 1
            for token in [token for token, principal in self._principals.items() if principal.id in user_ids]:
                del self._principals[token]

    def confirm(self, ended: Collection[int]) -> None:
        """Extend the cache after a check of the database that found logins or keys of these users ended."""
        if ended:
            self.forget(ended)
        with self._lock:
            if time.monotonic() >= self._valid_until:  # a login that ended in between may be too old for the check
                self._version += 1
                self._principals.clear()
            self._valid_until = time.monotonic() + LIFETIME_SECONDS
