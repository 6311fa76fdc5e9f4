"""Fixtures of several files: scripted servers, and what they need."""

import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from flask import Flask

from infra.local.backup import back_up
from infra.local.postgres_tools import PostgresTools
from shared.accounts import users
from shared.db.engine import Sessions
from shared.providers import openai_endpoint, openai_parameters
from shared.settings import Settings
from tests.support.backups import tools_of
from tests.support.client import PASSWORD, ApiUser
from tests.support.raw_server import RawServer
from tests.support.servers import MAX_WAIT_SECONDS, Servers
from tests.support.webhook_calls import Log, create


@pytest.fixture
def raw_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    """A server, of which nothing is known, although an earlier one may have had the same port."""
    monkeypatch.setattr(openai_parameters, "_dialects", {})
    monkeypatch.setattr(openai_endpoint, "_prefixes", {})
    with RawServer() as running:
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost and 127.0.0.1, and its key, that nobody else has signed."""
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command += f" -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout {path} -out {path}.crt"
    subprocess.run(command.split(), check=True, capture_output=True, timeout=MAX_WAIT_SECONDS)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def tools(settings: Settings) -> PostgresTools:
    return tools_of(settings)


@pytest.fixture
def backup(tools: PostgresTools, tmp_path: Path) -> Callable[[], Path]:
    """Back up the database of the test."""

    def write() -> Path:
        file = tmp_path / f"{uuid4().hex}.dump"
        back_up(tools, file)
        return file

    return write


@pytest.fixture
def empty(servers: Servers, settings: Settings) -> Iterator[Settings]:
    """The settings of an installation whose database does not exist yet."""
    name = f"test_{uuid4().hex[:12]}"
    yield servers.changed(settings, database_url=servers.postgres.url(name))
    servers._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def admin(app: Flask, sessions: Sessions) -> ApiUser:
    """An admin, whose name is root."""
    return _with_role(app, sessions, "root", is_admin=True)


@pytest.fixture
def viewer(app: Flask, sessions: Sessions) -> ApiUser:
    """A viewer, who sees what admins see."""
    return _with_role(app, sessions, "vera", is_viewer=True)


def _with_role(app: Flask, sessions: Sessions, name: str, **roles: bool) -> ApiUser:
    with sessions.begin() as session:
        user_id = users.create(session, name, users.hash_password(PASSWORD), **roles).id
    user = ApiUser(app, name, is_new=False)
    user.id = user_id
    return user


@pytest.fixture
def log(sessions: Sessions) -> Log:
    """The deliveries to webhooks in the database."""
    return Log(sessions)


@pytest.fixture(scope="module")
def shared_webhook(shared_alice: ApiUser) -> dict:
    """A webhook for tests that change nothing."""
    return create(shared_alice)
