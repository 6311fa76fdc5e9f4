"""Logins and API keys that have ended, found in Postgres, whether or not Redis announced them.

Every CHECK_SECONDS one statement asks for those that ended within WINDOW. So in every process a revocation takes effect
within a second, also without Redis. While Postgres cannot be asked either, the cache of tokens expires after
`token_cache.LIFETIME_SECONDS`.
"""

import threading
from collections.abc import Callable
from datetime import timedelta

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.auth.token_cache import TokenCache
from shared.accounts import logins
from shared.accounts.logins import EndedLogin
from shared.db.engine import cause

log = structlog.get_logger(__name__)

CHECK_SECONDS = 0.5
#: How far back a check looks.
WINDOW = timedelta(minutes=1)
THREAD_NAME = "ended-logins"


class EndedLogins:
    """Drops the tokens of ended logins from the cache, and reports each of these logins once.

    Args:
        report: Called with the id of a user when a login or a key of theirs has ended.
    """

    def __init__(self, autocommit_engine: Engine, token_cache: TokenCache, report: Callable[[int], None]) -> None:
        self._autocommit_engine = autocommit_engine
        self._token_cache = token_cache
        self._report = report
        self._known: frozenset[EndedLogin] = frozenset()
        self._recent_users: frozenset[int] = frozenset()
        self._is_failing = False
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start checking, in a thread (a greenlet, under gevent)."""
        threading.Thread(target=self._run, name=THREAD_NAME, daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def are_recent_of(self, user_id: int) -> bool:
        """Whether a login or a key of the user ended within WINDOW, as far as is known here."""
        return user_id in self._recent_users

    def check(self) -> None:
        """Ask Postgres."""
        with self._autocommit_engine.connect() as connection:
            ended = frozenset(logins.list_recently_ended(connection, WINDOW))
        new = {login.user_id for login in ended - self._known}
        # Before the report, so that a socket that is opened meanwhile is reported to now, or when it enters its room.
        self._known, self._recent_users = ended, frozenset(login.user_id for login in ended)
        self._token_cache.confirm(new)
        for user_id in new:
            self._report(user_id)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.check()
                self._is_failing = False
            except SQLAlchemyError as error:
                if not self._is_failing:
                    log.warning("ended logins not checked", error=cause(error))
                self._is_failing = True
            except Exception:
                log.exception("ended logins not checked")
            self._stopping.wait(CHECK_SECONDS)
