"""The connection to Redis or Valkey."""

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.settings import Settings

TIMEOUT_SECONDS = 0.5


def make_redis(settings: Settings) -> Redis:
    """A client that fails within about a second when Redis is away or stalled, after one more try."""
    return Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        socket_keepalive=True,
        health_check_interval=25,
        retry=Retry(NoBackoff(), 1),
        decode_responses=True,
    )
