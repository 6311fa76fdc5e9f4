"""Renewing the leases of the prompts that this process works on."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from shared.db.engine import Sessions, cause
from shared.prompts import claims
from shared.prompts.claims import Claim

log = structlog.get_logger(__name__)

RENEWALS_PER_LEASE = 3
#: Renewals are never further apart, because a renewal is also how a worker notices that a prompt was cancelled.
MAX_RENEWAL_SECONDS = 2.0


class Leases:
    """Renews leases from one thread, several times within each lease.

    A renewal also shows which claims are gone: their prompts were cancelled, deleted, or claimed by another worker.
    """

    def __init__(self, sessions: Sessions, lease: timedelta) -> None:
        self._sessions = sessions
        self._lease = lease
        self._claims: dict[tuple[int, int], Claim] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def hold(self, claims: Sequence[Claim]) -> Iterator[None]:
        """Renew the leases of these claims while the block runs."""
        keys = {(claim.id, claim.attempt): claim for claim in claims}
        with self._lock:
            self._claims.update(keys)
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew_for_ever, name="leases", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                for key in keys:
                    self._claims.pop(key, None)

    def is_held(self, claim: Claim) -> bool:
        """Whether the claim still held at the last renewal."""
        return (claim.id, claim.attempt) in self._claims

    def renew(self) -> None:
        """Renew all leases once, and forget the claims that are gone."""
        with self._lock:
            keys = list(self._claims)
        if not keys:
            return
        try:
            with self._sessions.begin() as session:
                kept = claims.renew(session, keys, self._lease)
        except SQLAlchemyError as error:
            log.warning("leases not renewed", error=cause(error))
            return
        with self._lock:
            for key in set(keys) - kept:
                self._claims.pop(key, None)

    def _renew_for_ever(self) -> None:
        pause = threading.Event()
        while not pause.wait(min(self._lease.total_seconds() / RENEWALS_PER_LEASE, MAX_RENEWAL_SECONDS)):
            self.renew()
