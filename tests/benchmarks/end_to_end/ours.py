"""Our service as it is deployed: gunicorn and a Celery worker, on their own database."""

import contextlib
import os
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import httpx

from api.app import create_app
from api.auth.api_keys import generate
from api.services import make_services
from shared.accounts import api_keys, users
from shared.accounts.api_keys import NewKey
from shared.db.engine import make_engine, make_sessions
from shared.db.models import DEFAULT_SCOPES
from shared.settings import Settings
from tests.benchmarks.cpu import server_pid
from tests.benchmarks.end_to_end.contender import Account, Contender
from tests.benchmarks.peers import serving
from tests.support import processes
from tests.support.servers import Servers, wait_until

_START_SECONDS = 60

#: The rate limit never rejects, but it is counted, which is part of the measurement. Tokens outlive the whole run.
SETTINGS = {
    "log_level": "INFO",
    "log_format": "json",
    "prompt_rate_limit": "100000/second",
    "access_token_minutes": 24 * 60,
    "feed_check_seconds": 5,  # the default; tests check more often
}


@contextlib.contextmanager
def serve(servers: Servers, accounts: int) -> Iterator[Contender]:
    """Run the service with one API process and two worker processes."""
    with prepared(servers) as settings, serve_on(servers, settings, sign_up(settings, accounts)) as contender:
        yield contender


@contextlib.contextmanager
def prepared(servers: Servers) -> Iterator[Settings]:
    """Create an empty database and an empty keyspace."""
    with servers.database() as name, serving.empty_keyspace(servers, 0) as redis_url:
        yield servers.settings(name, redis_url=redis_url, **SETTINGS)


@contextlib.contextmanager
def serve_on(
    servers: Servers, settings: Settings, accounts: list[Account], *, api: int = 1, workers: int = 2
) -> Iterator[Contender]:
    """Run the service with `api` and `workers` processes. Their logs are formatted and written to the null device."""
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        null_device = stack.enter_context(Path(os.devnull).open("wb"))
        worker = processes.start(
            processes.worker_command("bench", workers), settings, output=null_device, **processes.WORKER_ENVIRONMENT
        )
        stack.callback(processes.kill, worker)
        gunicorn = processes.start(processes.API, settings, output=null_device, PORT=str(port), API_PROCESSES=str(api))
        stack.callback(processes.kill, gunicorn)
        wait_until(lambda: processes.answers(url), seconds=_START_SECONDS, what="the API starting")
        _wait_for_an_answer(url, accounts[0])
        parts = {
            "api": [gunicorn.pid],
            "worker": [worker.pid],
            "valkey": [serving.valkey_pid(servers)],
            "postgres": [server_pid(servers)],
        }
        yield Contender("ours", url, accounts, parts)


def _wait_for_an_answer(url: str, account: Account) -> None:
    """Return once the worker answers prompts."""
    headers = {"Authorization": f"Bearer {account.token}", "Prefer": f"wait={_START_SECONDS}"}
    body = {"prompt_text": "What is a tide?"}
    answer = httpx.post(f"{url}/prompts/", json=body, headers=headers, timeout=_START_SECONDS + 10)
    if answer.status_code != HTTPStatus.CREATED:
        raise RuntimeError(f"The worker does not answer: {answer.status_code} {answer.text}")


def sign_up(settings: Settings, count: int) -> list[Account]:
    """Create users who are logged in. They have no passwords, because hashing is as slow as everything else here."""
    services = make_services(settings)
    accounts = []
    with create_app(settings, services).test_request_context(), services.sessions.begin() as session:
        for number in range(count):
            user = users.create(session, f"user-{number}", "-")
            accounts.append(Account(user.username, services.authenticator.log_in(session, user.id).access))
    services.sessions.kw["bind"].dispose()
    return accounts


def with_keys(settings: Settings, accounts: list[Account]) -> list[Account]:
    """Return the same users with API keys instead of access tokens."""
    engine = make_engine(settings, application_name="benchmark")
    keyed = [Account(account.username, generate()) for account in accounts]
    with make_sessions(engine).begin() as session:
        for account in keyed:
            user = users.find(session, account.username)
            api_keys.create(session, user.id, NewKey("benchmark", list(DEFAULT_SCOPES)), account.token)
    engine.dispose()
    return keyed
