"""Drops the replicas of deleted accounts from this process's memory."""

import threading
import time

import structlog
from sqlalchemy.exc import SQLAlchemyError

from shared.db.engine import cause
from shared.search.store import VectorStore

log = structlog.get_logger(__name__)

#: No answer comes from a replica of a deleted account, so this is only how long its vectors stay in memory.
INTERVAL_SECONDS = 5.0


def start(store: VectorStore) -> None:
    """Check this process's replicas every INTERVAL_SECONDS, in a thread (a greenlet, under gevent)."""
    threading.Thread(target=_run, args=(store,), name="replica-check", daemon=True).start()


def _run(store: VectorStore) -> None:
    while True:
        time.sleep(INTERVAL_SECONDS)
        try:
            store.drop_deleted()
        except SQLAlchemyError as error:
            log.warning("replicas not checked", error=cause(error))
        except Exception:
            log.exception("replicas not checked")
