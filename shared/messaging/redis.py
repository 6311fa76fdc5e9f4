"""The connection to Redis or Valkey."""

from typing import Any

from redis import ConnectionError, Redis, RedisError
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.exceptions import OutOfMemoryError, ReadOnlyError
from redis.retry import Retry

from shared.settings import Settings, SettingsError

TIMEOUT_SECONDS = 0.5
#: The key that `write_problem` writes. It expires soon.
_PROBE_KEY = "promptwire:probe"
_PROBE_LIFETIME_MS = 10_000
# Errors that redis-py has no class for, by their first word.
_REFUSALS = {
    "MISCONF": "Redis cannot write to its disk and refuses writes",
    "NOREPLICAS": "Redis has too few replicas to accept writes",
    "MASTERDOWN": "Redis is a replica that has lost its primary",
}


def make_redis(settings: Settings) -> Redis:
    """A client that fails within half a second when Redis is unavailable or stalled. It connects when it is used.

    Raises:
        SettingsError: REDIS_URL has options, after a question mark, that do not exist.
    """
    try:
        client = _make_client(settings)
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"REDIS_URL: an option in it is wrong: {error}") from error
    reconnect_if_read_only(client)
    return client


def _make_client(settings: Settings) -> Redis:
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


def reconnect_if_read_only(client: Redis) -> None:
    """Have the client reconnect before it uses a connection again whose server has become a read-only replica.

    After a failover the name in REDIS_URL leads to another server, but an open connection would stay where it is.
    """
    pool = client.connection_pool
    pool.connection_class = _TlsConnection if issubclass(pool.connection_class, SSLConnection) else _PlainConnection


def write_problem(client: Redis) -> str | None:
    """Try to write. Returns why Redis does not accept it, or None if it does."""
    try:
        client.set(_PROBE_KEY, "1", px=_PROBE_LIFETIME_MS)
    except RedisError as error:
        return refusal(error) or "unavailable"
    return None


def refusal(error: BaseException | None) -> str | None:
    """Why Redis, which works otherwise, refuses to write. None if the error says something else."""
    while error is not None:
        if isinstance(error, WriteRefusedError):
            return str(error)
        if isinstance(error, ReadOnlyError):
            return "Redis is a read-only replica"
        if isinstance(error, OutOfMemoryError):
            return "Redis is out of memory"
        if isinstance(error, RedisError) and (found := _REFUSALS.get(str(error).partition(" ")[0])):
            return found
        error = error.__cause__  # kombu wraps it
    return None


def cause(error: BaseException) -> str:
    """Why Redis failed, for the log."""
    return refusal(error) or type(error).__name__


class WriteRefusedError(ConnectionError):
    """Redis works otherwise, but refuses to write. The message says why."""


class _Reconnecting:
    """Reconnects after an answer that the server is a read-only replica: a mixin of redis-py's connections."""

    _is_read_only = False

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().read_response(*arguments, **options)  # type: ignore[misc]
        except ReadOnlyError:
            # Not now: the answers to the rest of a pipeline are still to be read.
            self._is_read_only = True
            raise

    def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        if self._is_read_only:
            self._is_read_only = False
            self.disconnect()  # type: ignore[attr-defined]
        super().send_packed_command(*arguments, **options)  # type: ignore[misc]


class _PlainConnection(_Reconnecting, Connection):
    pass


class _TlsConnection(_Reconnecting, SSLConnection):
    pass
