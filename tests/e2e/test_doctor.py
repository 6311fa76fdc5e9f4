"""The doctor reports nothing about a sound installation, and names each problem of a broken one."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from sqlalchemy import text

from infra.doctor import __main__ as doctor
from infra.doctor.__main__ import CHECKS, DEEP_CHECKS, Line, examine
from infra.doctor.stores import _check_skew
from shared.db.engine import Sessions
from shared.messaging.queue import make_celery
from shared.messaging.redis import make_redis
from shared.settings import Settings
from tests.support import processes
from tests.support.processes import RemoteUser, free_port, start
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, Servers, environment_of, wait_until
from worker.pipeline import Pipeline

#: Findings about the tests' servers, which need no durability.
EXPECTED = {
    "PostgreSQL runs with fsync=off",
    "PostgreSQL runs with full_page_writes=off",
    "PostgreSQL runs with synchro",
}


@pytest.fixture(scope="module")
def flower(settings: Settings) -> Iterator[str]:
    """Flower as everything here starts it."""
    with _flower(["worker.flower"], settings, FLOWER_PASSWORD="a password") as url:
        yield url


@contextmanager
def _flower(command: list[str], settings: Settings, **environment: str) -> Iterator[str]:
    port = free_port()
    running = start(command, settings, FLOWER_PORT=str(port), **environment)
    try:
        wait_until(lambda: _serves(port), 30, "Flower")
        yield f"http://127.0.0.1:{port}"
    finally:
        processes.kill(running)


def _serves(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthcheck").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def running_worker(settings: Settings) -> Iterator[None]:
    with processes.worker(settings, processes=1):
        wait_until(lambda: make_celery(settings).control.ping(timeout=0.5), what="the worker")
        yield


@pytest.fixture
def diagnose(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, url: str, flower: str, running_worker: None
) -> Callable[..., list[Line]]:
    """Run the doctor on the stack with some settings changed.

    `only` is the name of the check that the test is about: all others take seconds.
    """

    def run(only: str | None = None, **changes: str) -> list[Line]:
        for name, checks in {"CHECKS": CHECKS, "DEEP_CHECKS": DEEP_CHECKS}.items():
            monkeypatch.setattr(doctor, name, tuple(check for check in checks if only in (None, check.name)))
        environment = environment_of(settings) | {"PUBLIC_URL": url, "FLOWER_URL": flower, "APP_ENV": "dev"} | changes
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return [line for line in examine(deep=True) if not any(line.problem.startswith(known) for known in EXPECTED)]

    return run


def wrong(lines: list[Line]) -> dict[str, str]:
    """The problems of each check that found something wrong."""
    found: dict[str, str] = {}
    for line in lines:
        if line.state == "wrong":
            found[line.check] = f"{found.get(line.check, '')}{line.problem}\n"
    return found


def test_the_doctor_finds_nothing_wrong_with_a_sound_installation(diagnose) -> None:
    lines = diagnose()
    assert wrong(lines) == {}
    names = {check.name for check in (*CHECKS, *DEEP_CHECKS)}
    assert {line.check for line in lines} | {"postgres"} == names | {"settings", "postgres"}
    assert not [line for line in lines if line.state == "skipped"]


@pytest.mark.parametrize(
    ("setting", "value", "check", "says"),
    [
        ("JWT_SECRET_KEY", "short", "secrets", "JWT_SECRET_KEY is short"),
        ("DATABASE_URL", "postgresql://me:x@127.0.0.1:9/db", "postgres", "Postgres is unavailable"),
        ("DATABASE_URL", "postgresql://me:password@127.0.0.1:9/db", "secrets", "DATABASE_URL has a password that"),
        ("REDIS_URL", "redis://127.0.0.1:9/0", "redis", "Redis is unavailable"),
        ("REDIS_URL", "redis://cache.example.com/0", "secrets", "REDIS_URL has no password"),
        ("WS_ROOM_AUTH", "open", "profile", "WS_ROOM_AUTH=open"),
        ("ALLOWED_ORIGINS", "*", "profile", "ALLOWED_ORIGINS=*"),
        ("REAPER_SECONDS", "90", "time-outs", "REAPER_SECONDS (90) must be less than LEASE_SECONDS (60)"),
        ("OPENAI_TIMEOUT_SECONDS", "300", "time-outs", "OPENAI_TIMEOUT_SECONDS (300) must be less"),
        ("VECTOR_STORE", "pgvector", "vector store", "its tables do not exist"),
        ("GENERATOR", "simulatd", "settings", "GENERATOR='simulatd' is not a known generator."),
        ("GENERATOR", "no.such:Model", "generator", "GENERATOR='no.such:Model' could not be imported"),
        ("EMBEDDER", "no.such:Model", "embedder", "EMBEDDER='no.such:Model' could not be imported"),
        ("SEGMENTS_URL", "s4://bucket", "vector store", "SEGMENTS_URL: Protocol not known"),
        ("PUBLIC_URL", "http://127.0.0.1:9", "public URL", "cannot be reached"),
        ("LEASE_SECONDS", "soon", "settings", "LEASE_SECONDS must be a number from 0.1 to 86400."),
    ],
)
def test_the_doctor_names_a_broken_setting(diagnose, setting: str, value: str, check: str, says: str) -> None:
    assert says in wrong(diagnose(check, **{setting: value}))[check]


def test_the_doctor_names_an_embedder_that_does_not_match_the_index(diagnose, url: str, worker: Pipeline) -> None:
    alice = RemoteUser(url)
    alice.submit()
    worker.process(1)
    assert alice.wait(alice.submit())["status"] == "completed"
    found = wrong(diagnose("embedder and index", EMBEDDER="tests.support.providers:Backwards"))
    assert "from the embedder hashing-1, which neither EMBEDDER" in found["embedder and index"]
    previous = {"EMBEDDER": "tests.support.providers:Backwards", "PREVIOUS_EMBEDDER": "hashing"}
    kept = diagnose("embedder and index", **previous)
    assert [line.state for line in kept if line.check == "embedder and index"] == ["beware"]


def test_the_doctor_names_a_schema_of_another_version(diagnose, sessions: Sessions) -> None:
    with sessions.begin() as session:
        current = session.scalar(text("SELECT version_num FROM alembic_version"))
        session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    try:
        assert "schema does not match" in wrong(diagnose("postgres"))["postgres"]
    finally:
        with sessions.begin() as session:
            session.execute(text("UPDATE alembic_version SET version_num = :current"), {"current": current})


@pytest.mark.parametrize(
    ("name", "broken", "state", "says"),
    [
        ("maxmemory-policy", "allkeys-lru", "wrong", "maxmemory-policy is allkeys-lru"),
        ("appendonly", "no", "beware", "no append-only file"),
    ],
)
def test_the_doctor_names_unsafe_redis_settings(
    diagnose, servers: Servers, name: str, broken: str, state: str, says: str
) -> None:
    with make_redis(servers.settings("any")) as redis:
        before = redis.config_get(name)[name]
        redis.config_set(name, broken)
        try:
            lines = diagnose("redis")
        finally:
            redis.config_set(name, before)
    assert [says in line.problem for line in lines if (line.check, line.state) == ("redis", state)] == [True]


def test_the_doctor_names_a_flower_without_a_password(diagnose, settings: Settings) -> None:
    plain = ["celery", "--quiet", "-A", "worker.app", "flower", "--address=127.0.0.1", "--logging=error"]
    with _flower(plain, settings, FLOWER_UNAUTHENTICATED_API="true") as open_flower:
        assert "anyone can read all tasks" in wrong(diagnose("flower", FLOWER_URL=open_flower))["flower"]


def test_the_doctor_names_a_flower_whose_metrics_are_open(diagnose) -> None:
    """As with Flower's own basic authentication."""
    with _server(lambda path: (200 if path == "/metrics" else 401, b"")) as flower:
        assert "/metrics has no password" in wrong(diagnose("flower", FLOWER_URL=flower))["flower"]


@pytest.mark.parametrize(("seconds", "found"), [(0.5, False), (-1.9, False), (2.5, True), (-60, True)])
def test_the_doctor_names_clocks_that_differ(seconds: float, found: bool) -> None:
    assert bool(list(_check_skew("Redis", seconds))) == found


def test_the_exit_code_says_whether_something_is_wrong(settings: Settings) -> None:
    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess:
        environment = environment_of(settings) | {"PATH": ""} | changes
        command = [sys.executable, "-m", "infra.doctor", *arguments]
        return subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=MAX_WAIT_SECONDS, check=False
        )

    broken = run("--json", "--deep", JWT_SECRET_KEY="")
    assert broken.returncode == 1
    (line,) = map(json.loads, broken.stdout.splitlines())
    assert (line["state"], line["check"]) == ("wrong", "settings")
    assert "→ See .env.example" in run(JWT_SECRET_KEY="").stdout


@contextmanager
def _server(answer: Callable[[str], tuple[int, bytes]]) -> Iterator[str]:
    """A server that answers a GET of a path with this status and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join(MAX_WAIT_SECONDS)
