"""kombu's transport for Redis, but one that refuses what is no message instead of ending the worker."""

from typing import Any

import structlog
from kombu.transport import redis

log = structlog.get_logger(__name__)


class Channel(redis.Channel):  # type: ignore[misc]
    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # It is off the list already. Redis's own errors are none of these.
            log.error("message refused: not made by Celery", error=type(error).__name__)


class Transport(redis.Transport):  # type: ignore[misc]
    Channel = Channel
