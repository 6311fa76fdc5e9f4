"""Telling operators that this worker host runs: its row in the table `workers`."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from celery.worker import state

from shared.db.engine import Sessions
from shared.operators import worker_hosts
from shared.operators.worker_hosts import Presence
from shared.version import get_version

INTERVAL_SECONDS = 5.0


@dataclass(frozen=True)
class PresenceWriter:
    """Writes the row of this host.

    Args:
        models: The model routes that it answers.
    """

    sessions: Sessions
    pool: str
    concurrency: int
    models: Sequence[str]
    _id: UUID = field(default_factory=uuid4)

    def round(self) -> None:
        presence = Presence(
            id=self._id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=get_version(),
            pool=self.pool,
            concurrency=self.concurrency,
            models=list(self.models),
            active_tasks=len(state.active_requests),
        )
        with self.sessions.begin() as session:
            worker_hosts.write(session, presence)
