"""The production profile with the commands, environment and health checks of docker-compose.yml."""

import base64
import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support import processes
from tests.support.client import PASSWORD
from tests.support.containers import Container, Project
from tests.support.processes import RemoteUser
from tests.support.servers import Servers, wait_until

KEY = "k3Yn8" * 10
USERS = ("alice", "bob")
FLOWER_PASSWORD = "a,b/c@d:e #%ü"


@pytest.fixture(scope="module")
def empty_database(servers: Servers) -> Iterator[str]:
    """A database without tables, as PostgreSQL's container creates it."""
    with servers.copy() as name:
        yield name


@pytest.fixture(scope="module")
def project(servers: Servers, empty_database: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("containers")
    folder.chmod(0o777)
    for parent in list(folder.parents)[:2]:
        parent.chmod(0o755)
    dotenv = {
        "JWT_SECRET_KEY": KEY,
        "FLOWER_PASSWORD": FLOWER_PASSWORD,
        "PROMPT_RATE_LIMIT": "1000/second",
        "SIMULATED_DELAY": "0.1",
    }
    return Project(servers, empty_database, folder, dotenv)


@pytest.fixture(scope="module")
def stack(project: Project) -> Iterator["Stack"]:
    """All services, started in the order of `depends_on`, with two APIs and three workers."""
    with contextlib.ExitStack() as started:
        stack = Stack(project, started)
        yield stack
        for process in stack.processes:  # all at once; the exit stack waits for one after the other
            process.terminate()


class Stack:
    """Running containers."""

    def __init__(self, project: Project, started: contextlib.ExitStack) -> None:
        migrated = project.container("migrate").run()
        assert migrated.returncode == 0, migrated.stderr
        self.logs = project.folder
        self._started = started
        self.processes: list[psutil.Process] = []
        self.api = [project.container("api", host=f"api-{i}", PORT=str(processes.free_port())) for i in (1, 2)]
        self.workers = [project.container("worker", host=f"worker-{i}") for i in (1, 2, 3)]
        for i, container in enumerate([*self.api, *self.workers]):
            self._start(container, f"{i}.log")
        self.flower_port = processes.free_port()
        self.flower = project.container("flower", host="flower", FLOWER_PORT=str(self.flower_port))
        self._start(self.flower, "flower.log")
        # A look at what the health checks look at is cheap; each health check is a process.
        for i in range(len(self.api)):
            wait_until(partial(processes.answers, self.url(i)), what="an API answering")
        for worker in self.workers:
            wait_until(Path(worker.environment["HEARTBEAT_FILE"]).exists, what="a worker's heartbeat")
        for container in (*self.api, *self.workers):
            wait_until(container.is_healthy, what="a container becoming healthy")
        for name in USERS:
            created = self.api[0].run(["python", "-m", "api.users_cli", "create", name], NEW_PASSWORD=PASSWORD)
            assert created.returncode == 0, created.stderr

    def _start(self, container: Container, log: str) -> None:
        self.processes.append(psutil.Process(self._started.enter_context(container.running(self.logs / log)).pid))

    def url(self, i: int) -> str:
        return f"http://127.0.0.1:{self.api[i].environment['PORT']}"

    def get_flower(self, path: str, *, password: str = FLOWER_PASSWORD) -> httpx.Response:
        # httpx encodes in Latin-1, unlike browsers.
        login = base64.b64encode(f"admin:{password}".encode()).decode()
        return httpx.get(f"http://127.0.0.1:{self.flower_port}{path}", headers={"Authorization": f"Basic {login}"})


def test_the_containers_answer_a_prompt(stack: Stack) -> None:
    alice = RemoteUser(stack.url(0), "alice", is_new=False)
    assert alice.wait(alice.submit("What is a tide?"))["status"] == "completed"


def test_registration_is_closed(stack: Stack) -> None:
    answer = httpx.post(f"{stack.url(0)}/auth/register/", json={"username": "eve", "password": PASSWORD})
    assert answer.status_code == 403


def test_without_trusted_proxies_nobody_says_that_clients_use_https(stack: Stack) -> None:
    forged = {"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "on", "X-Forwarded-Protocol": "ssl"}
    answer = httpx.get(f"{stack.url(0)}/", headers=forged)
    assert (answer.status_code, answer.headers.get("Strict-Transport-Security")) == (200, None)


def test_no_container_runs_as_root(stack: Stack) -> None:
    """In a user namespace, root outside is another user inside."""
    for process in stack.processes:
        namespace = (Path("/proc") / str(process.pid) / "uid_map").read_text().split()
        assert process.uids().real != 0 or (namespace[0] != "0" and namespace[2] == "1")


def newest_event(user: RemoteUser) -> int:
    with user.join() as room:
        return room.receive()["seq"]


def test_two_apis_and_three_workers_share_the_load_and_each_prompt_is_answered_once(stack: Stack) -> None:
    users = [RemoteUser(stack.url(i % 2), name, is_new=False) for i, name in enumerate(USERS)]
    before = {user.username: newest_event(user) for user in users}
    submitted = [(user, user.submit(f"question {i}")) for i in range(20) for user in users]
    for user, prompt_id in submitted:
        ended = user.wait(prompt_id)
        assert (ended["status"], ended["attempt"]) == ("completed", 1)
    # The transaction that finishes a prompt numbers its event.
    assert {user.username: newest_event(user) - before[user.username] for user in users} == dict.fromkeys(USERS, 20)

    def workers_with_tasks() -> set[str]:
        workers = stack.get_flower("/api/workers?refresh=1").json()
        return {name for name, worker in workers.items() if sum(worker["stats"]["total"].values())}

    everyone = {"worker@worker-1", "worker@worker-2", "worker@worker-3"}
    wait_until(lambda: workers_with_tasks() == everyone, what="Flower listing tasks of every worker")


FLOWER_PATHS = [
    "/",
    "/workers",
    "/tasks",
    "/broker",
    "/api/workers",
    "/api/queues/length",
    "/metrics",
    "/static/favicon.ico",
]


@pytest.mark.parametrize("path", FLOWER_PATHS)
def test_flower_shows_everything_with_its_password_and_nothing_without(stack: Stack, path: str) -> None:
    assert stack.get_flower(path).status_code == 200
    for wrong in ("wrong", "", "café"):
        refused = stack.get_flower(path, password=wrong)
        assert (refused.status_code, refused.text) == (401, "Flower needs a password.\n")


@pytest.mark.parametrize("path", ["/nothing", "/login", "//healthcheck", "/healthcheck/", "/worker/healthcheck"])
def test_a_path_that_flower_does_not_have_needs_the_password_too(stack: Stack, path: str) -> None:
    assert stack.get_flower(path, password="wrong").status_code == 401


@pytest.mark.parametrize("header", ["", "Basic", "Basic !", "Basic YWRtaW4=", "Bearer x", "Basic \xff"])
def test_flower_refuses_a_malformed_login(stack: Stack, header: str) -> None:
    url = f"http://127.0.0.1:{stack.flower_port}/metrics"
    assert httpx.get(url, headers={"Authorization": header.encode("latin-1")}).status_code == 401


def test_the_health_check_of_flower_needs_no_password(stack: Stack) -> None:
    assert stack.get_flower("/healthcheck", password="wrong").text == "OK"


def test_flower_gets_no_secrets_but_its_own_and_the_brokers(stack: Stack) -> None:
    secrets = {name for name in stack.flower.environment if name.endswith(("_PASSWORD", "_KEY", "_TOKEN"))}
    assert secrets == {"FLOWER_PASSWORD", "REDIS_PASSWORD"}
    assert "DATABASE_URL" not in stack.flower.environment


def test_flower_does_not_start_without_a_password(stack: Stack) -> None:
    refused = stack.flower.run(FLOWER_PASSWORD="")
    assert refused.returncode != 0
    assert "FLOWER_PASSWORD is not set" in refused.stderr


def test_a_container_that_does_not_run_is_not_healthy(project: Project) -> None:
    assert not project.container("api", PORT=str(processes.free_port())).is_healthy()
    assert not project.container("worker", host="nowhere").is_healthy()


@pytest.mark.parametrize("service", ["api", "worker"])
def test_a_container_with_an_unsafe_setting_does_not_start(project: Project, service: str) -> None:
    """tests/unit/test_settings.py has every unsafe setting."""
    unsafe = Project(project.servers, project.database, project.folder, {**project.dotenv, "WS_ROOM_AUTH": "open"})
    refused = unsafe.container(service, PORT=str(processes.free_port())).run()
    assert refused.returncode != 0
    assert "WS_ROOM_AUTH=open lets" in refused.stderr


@pytest.mark.parametrize("service", ["api", "worker"])
def test_app_env_in_the_env_file_does_not_switch_off_production(project: Project, service: str) -> None:
    copied = Project(project.servers, project.database, project.folder, {**project.dotenv, "APP_ENV": "dev"})
    assert copied.container(service).environment["APP_ENV"] == "prod"
