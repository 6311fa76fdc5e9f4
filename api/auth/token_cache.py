"""Access tokens that were found good, so that requests need not ask the database again.

When a login ends, Redis tells every API process, which forgets the tokens of its user: within milliseconds. Should that
message be lost, the relay finds the ended login in the database, where it looks every FEED_CHECK_SECONDS; and if it
cannot look, nothing is remembered for longer than SECONDS.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Engine

from shared.accounts import users

SECONDS = 10.0
MOST = 20_000


@dataclass(frozen=True, slots=True)
class Principal:
    """Whose access token it is, of which login, and until when, in seconds since the epoch."""

    id: int
    username: str
    family: UUID | None  #: None in an open room, which asks for no token
    expires_at: float


def is_alive(autocommit_engine: Engine, caller: Principal) -> bool:
    """Whether the caller's login goes on, as the database has it."""
    if time.time() >= caller.expires_at:
        return False
    if caller.family is None:
        return True
    with autocommit_engine.connect() as connection:
        return users.find_by_family(connection, caller.family) is not None


class TokenCache:
    """What this process remembers: at most so many tokens; beyond that, those that came first go."""

    def __init__(self, *, most: int = MOST) -> None:
        self._most = most
        self._known: OrderedDict[str, Principal] = OrderedDict()
        self._good_until = 0.0
        self._changes = 0
        self._lock = threading.Lock()

    @property
    def moment(self) -> int:
        """To be had before the database is asked, for `remember`."""
        return self._changes

    def find(self, token: str) -> Principal | None:
        """The caller with this token, if it was found good and nothing speaks against it."""
        caller = self._known.get(token)
        if caller is None or time.monotonic() >= self._good_until or time.time() >= caller.expires_at:
            return None
        return caller

    def remember(self, token: str, caller: Principal, moment: int) -> None:
        """Takes note of a good token, unless a login has ended since that moment."""
        with self._lock:
            if moment == self._changes:
                self._known[token] = caller
                self._known.move_to_end(token)
                if len(self._known) > self._most:
                    self._known.popitem(last=False)

    def forget(self, user_ids: Collection[int]) -> None:
        """Forgets the tokens of users of whom a login has ended."""
        with self._lock:
            self._changes += 1
            for token in [token for token, caller in self._known.items() if caller.id in user_ids]:
                del self._known[token]

    def checked(self, ended: Collection[int]) -> None:
        """Notes that the database was asked just now, and of which users logins have ended since the last time."""
        if ended:
            self.forget(ended)
        with self._lock:
            if time.monotonic() >= self._good_until:  # what has ended meanwhile may be longer ago than was asked for
                self._changes += 1
                self._known.clear()
            self._good_until = time.monotonic() + SECONDS
