"""What every peer gets: an empty database, its own processes, and time to start."""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec

import httpx
import jwt
import psycopg2
import psycopg2.errors
import psycopg2.extensions
from redis import Redis
from sqlalchemy.engine import make_url
from websockets.sync.client import connect

from tests.benchmarks.cpu import server_pid
from tests.benchmarks.end_to_end.contender import Account, Contender
from tests.support import processes
from tests.support.servers import ROOT, Servers, wait_until

TOKEN_HOURS = 2
#: The user whose prompt shows that a peer works before it is measured.
PROBE = "probe"
_ROLE = "peer"
_START_SECONDS = 60


class NotInstalledError(Exception):
    """A library of the peer is missing, so the peer is skipped."""


def require(*modules: str) -> None:
    """Raise NotInstalledError if one of these modules is missing."""
    for module in modules:
        if find_spec(module) is None:
            raise NotInstalledError(f"{module} is not installed")


def usernames(accounts: int) -> list[str]:
    """Return the names of `accounts` users, and of the probe last."""
    return [*(f"user-{i}" for i in range(accounts)), PROBE]


@contextlib.contextmanager
def empty_database(servers: Servers) -> Iterator[str]:
    """Create a database on our server without our tables, and yield its URL."""
    with servers.database() as name:
        url = servers.postgres.url(name)
        with contextlib.closing(psycopg2.connect(url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("DROP SCHEMA public CASCADE")
                cursor.execute("CREATE SCHEMA public")
                _make_role(cursor)
        yield make_url(url).set(username=_ROLE, password=_ROLE).render_as_string(hide_password=False)


def _make_role(cursor: psycopg2.extensions.cursor) -> None:
    """Create a role whose password takes PostgreSQL and its client less than 5 ms to verify.

    Otherwise a peer that connects for each request (Django's default) would be compared by that cost.
    """
    cursor.execute("SET scram_iterations = 1")
    with contextlib.suppress(psycopg2.errors.DuplicateObject):  # created for an earlier database
        cursor.execute(f"CREATE ROLE {_ROLE} SUPERUSER LOGIN PASSWORD '{_ROLE}'")


@contextlib.contextmanager
def empty_keyspace(servers: Servers, number: int) -> Iterator[str]:
    """Yield the URL of an empty database of our Valkey, so that queues do not mix. Pub/sub channels are shared."""
    url = f"{servers.redis_url.rpartition('/')[0]}/{number}"
    with Redis.from_url(url) as redis:
        redis.flushdb()
        try:
            yield url
        finally:
            redis.flushdb()


def valkey_pid(servers: Servers) -> int:
    with Redis.from_url(servers.redis_url) as redis:
        return int(redis.info("server")["process_id"])


@contextlib.contextmanager
def running(module: str, *arguments: str, environment: Mapping[str, str]) -> Iterator[int]:
    """Run a Python module as a process in its own session, and kill it with its children at the end. Yield its id.

    Its logs are formatted and written to the null device, as ours are.
    """
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env=os.environ | environment,
        cwd=ROOT,
        start_new_session=True,
        stdout=quiet,
        stderr=quiet,
    )
    try:
        yield process.pid
    finally:
        processes.kill(process)


@contextlib.contextmanager
def with_queue(
    servers: Servers,
    name: str,
    keyspace: int,
    accounts: int,
    *,
    make_users: Callable[[str, Sequence[str], str], list[Account]],
    api: Callable[[int], Sequence[str]],
    worker: Sequence[str],
    worker_processes: int = 1,
) -> Iterator[Contender]:
    """Run a peer's API and worker, which read PEER_DATABASE_URL, PEER_REDIS_URL, PEER_SECRET and PEER_CHANNELS.

    The last is what the names of the users' pub/sub channels begin with: all databases of Valkey share them.

    Args:
        keyspace: The number of the peer's database in Valkey.
        make_users: Creates the tables and the users, given the database's URL, the names and the secret.
        api: The module that serves HTTP on a port, and its arguments.
        worker: The worker's module and its arguments.
        worker_processes: How often the worker is started, if it does not start processes itself.
    """
    with contextlib.ExitStack() as stack:
        database_url = stack.enter_context(empty_database(servers))
        redis_url = stack.enter_context(empty_keyspace(servers, keyspace))
        secret, port = secrets.token_hex(), processes.free_port()
        users = make_users(database_url, usernames(accounts), secret)
        environment = {
            "PEER_DATABASE_URL": database_url,
            "PEER_REDIS_URL": redis_url,
            "PEER_SECRET": secret,
            "PEER_CHANNELS": f"{name}:user:",
        }
        parts = {
            "api": [stack.enter_context(running(*api(port), environment=environment))],
            "worker": [stack.enter_context(running(*worker, environment=environment)) for _ in range(worker_processes)],
            "valkey": [valkey_pid(servers)],
            "postgres": [server_pid(servers)],
        }
        url = f"http://127.0.0.1:{port}"
        wait_until_it_works(url, users.pop())
        yield Contender(name, url, users, parts)


def insert_users(database_url: str, tables: str, names: Sequence[str]) -> dict[str, int]:
    """Create the tables, and users with these names. Return their ids."""
    with contextlib.closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        if tables:
            cursor.execute(tables)
        cursor.execute("INSERT INTO users (username) SELECT unnest(%s) RETURNING username, id", (list(names),))
        ids = dict(cursor.fetchall())
    return {name: ids[name] for name in names}


def with_tokens(users: Mapping[str, int], secret: str) -> list[Account]:
    """The users, each with a token that `fastapi_app.py` accepts."""
    expires_at = int(time.time()) + TOKEN_HOURS * 3_600
    return [
        Account(name, jwt.encode({"sub": str(user_id), "username": name, "exp": expires_at}, secret))
        for name, user_id in users.items()
    ]


def uvicorn(port: int, app: str) -> tuple[str, ...]:
    """The fastest uvicorn that serves an application on a port."""
    loop = ("--loop", "uvloop", "--http", "httptools", "--ws", "websockets-sansio", "--ws-per-message-deflate", "false")
    quiet = ("--no-access-log", "--log-level", "warning")
    return ("uvicorn", "--host", "127.0.0.1", "--port", str(port), *loop, *quiet, app)


def wait_until_it_listens(url: str) -> None:
    """Return once the peer answers HTTP with any status below 500."""

    def listens() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{url}/login/").status_code < 500
        return False

    wait_until(listens, seconds=_START_SECONDS, what="the peer starting")


def wait_until_it_works(url: str, probe: Account) -> None:
    """Return once a prompt's answer was pushed to its user's socket."""
    wait_until_it_listens(url)
    headers = {"Authorization": f"Bearer {probe.token}"}
    room = f"{url.replace('http', 'ws', 1)}/ws/prompts/{probe.username}/"
    with connect(room, additional_headers=headers) as socket:
        socket.recv(timeout=_START_SECONDS)  # the greeting
        body = {"prompt_text": "What is a tide?", "websocket": True}
        httpx.post(f"{url}/prompts/", json=body, headers=headers).raise_for_status()
        answer = json.loads(socket.recv(timeout=_START_SECONDS))
        if not answer.get("response_text"):
            raise RuntimeError(f"The peer does not answer: {answer}")
