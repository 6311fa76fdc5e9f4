"""Drops the replicas of deleted accounts from this process's memory."""

import threading

import structlog
from sqlalchemy.exc import SQLAlchemyError

from shared.db.engine import cause
from shared.search.store import VectorStore

log = structlog.get_logger(__name__)

#: No answer comes from a replica of a deleted account, so this is only how long its vectors stay in memory.
INTERVAL_SECONDS = 5.0


def start(store: VectorStore, seconds: float = INTERVAL_SECONDS) -> threading.Event:
    """Check this process's replicas regularly, in a thread (a greenlet, under gevent), until the event is set."""
    stop = threading.Event()
    threading.Thread(target=_run, args=(store, seconds, stop), name="replica-check", daemon=True).start()
    return stop


def _run(store: VectorStore, seconds: float, stop: threading.Event) -> None:
    while not stop.wait(seconds):
        try:
            store.drop_deleted()
        except SQLAlchemyError as error:
            log.warning("replicas not checked", error=cause(error))
        except Exception:
            log.exception("replicas not checked")
