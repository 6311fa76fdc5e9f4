"""The connection to Redis or Valkey."""

from redis import ConnectionError, Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.settings import Settings

TIMEOUT_SECONDS = 0.5


def make_redis(settings: Settings) -> Redis:
    """A client that fails within half a second when Redis is unavailable or stalled."""
    return Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        socket_keepalive=True,
        health_check_interval=25,
        # A dropped connection is reconnected at once; a server that does not answer is not asked twice.
        retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
        decode_responses=True,
        # Promptwire only sends UTF-8. Other bytes must not raise an error that also loses other users' messages.
        encoding_errors="replace",
    )
