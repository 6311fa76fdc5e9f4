"""`make up`, as a person would use it: the documented sessions, many users at once, faults, what it refuses."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support import metrics, watchdog
from tests.support.processes import RemoteUser, free_port
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, wait_until


class Stack:
    """What `make up` starts, on a folder of its own."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.port, self.flower_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = os.environ | {
            "DATA_DIR": str(folder),
            "PORT": str(self.port),
            "FLOWER_PORT": str(self.flower_port),
            "PROMPT_RATE_LIMIT": "1000/second",
            "FEED_CHECK_SECONDS": "1",
            **environment,
        }
        self.output = ""

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "infra.local", "up"],
            env=self._environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        watchdog.watch(self.process.pid)
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def wait_until_ready(self) -> None:
        wait_until(lambda: "Promptwire is ready." in self.output or self.process.poll() is not None, what="being ready")
        assert self.process.poll() is None, self.output

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Stop the stack. Returns how many seconds that took."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=MAX_WAIT_SECONDS)
        self._reading.join()
        return time.monotonic() - started

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def part(self, *words: str) -> psutil.Process:
        """The direct child whose command line contains these words."""
        (found,) = (
            child
            for child in psutil.Process(self.process.pid).children()
            if all(word in " ".join(child.cmdline()) for word in words)
        )
        return found

    def log_in(self) -> str:
        login = json.loads((self.folder / "alice.json").read_text())
        return httpx.post(f"{self.url}/login/", json=login).raise_for_status().json()["access"]

    def _read(self) -> None:
        for line in self.process.stdout:
            self.output += line
        self.process.stdout.close()


@contextlib.contextmanager
def running(folder: Path, **environment: str) -> Iterator[Stack]:
    stack = Stack(folder, **environment)
    stack.start()
    try:
        stack.wait_until_ready()
        yield stack
    finally:
        if stack.process.poll() is None:
            stack.stop()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def stack(home: Path) -> Iterator[Stack]:
    with running(home, API_PROCESSES="2", WORKER_PROCESSES="2", LEASE_SECONDS="4", REAPER_SECONDS="1") as up:
        yield up


def run_session(page: Path, stack: Stack) -> str:
    """Pastes a page's first session into a shell, which must print what the page shows. Returns all that it prints."""
    session = re.search(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)[1].replace(
        ".venv/bin/python", sys.executable
    )
    environment = os.environ | {"URL": stack.url, "DATA_DIR": str(stack.folder)}
    result = subprocess.run(
        ["bash", "-euc", session], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    promised = re.findall(r"^# ([{\[].*|  ….*|data: .*|prompt\.completed .*)$", session, re.MULTILINE)
    assert promised
    for line in promised:
        pattern = ".*".join(re.escape(part) for part in line.split("…") if part)
        assert re.search(pattern, result.stdout), f"{line}\nis not in\n{result.stdout}"
    return result.stdout


def test_the_session_of_the_tutorial_works_as_pasted(stack: Stack) -> None:
    run_session(ROOT / "docs" / "tutorial.md", stack)


def test_the_session_of_the_readme_works_as_pasted_and_shows_text_arriving(home: Path) -> None:
    with running(home.parent / "readme", SIMULATED_DELAY="2") as slow:
        printed = run_session(ROOT / "README.md", slow)
    assert printed.count('"type":"prompt.delta"') > 2


class Listener(threading.Thread):
    """A user's socket, which records each event and at once searches for its prompt over another connection."""

    def __init__(self, user: RemoteUser, expected: int) -> None:
        super().__init__()
        self.user, self.expected = user, expected
        self.events: list[dict] = []
        self.missed: list[int] = []
        self.joined = threading.Event()

    def run(self) -> None:
        with self.user.join() as room:
            room.receive()
            self.joined.set()
            while len(self.events) < self.expected:
                event = room.receive_ending()
                self.events.append(event)
                found = self.user.http.get(
                    "/prompts/similar/", params={"prompt": event["prompt_text"], "limit": 1}
                ).raise_for_status()
                if found.json()[0]["id"] != event["id"]:
                    self.missed.append(event["id"])
            assert room.ask({"type": "ping"})["type"] == "pong"  # and no other event before it


def test_200_prompts_of_20_users_at_once(stack: Stack) -> None:
    users = [RemoteUser(stack.url) for _ in range(20)]
    listeners = [Listener(user, 10) for user in users]
    for listener in listeners:
        listener.start()
        listener.joined.wait(MAX_WAIT_SECONDS)
    submitted: dict[str, list[int]] = {}

    def submit(user: RemoteUser) -> None:
        submitted[user.username] = [user.submit(f"question {i} of {user.username}") for i in range(10)]

    submitting = [threading.Thread(target=submit, args=[user]) for user in users]
    for thread in submitting:
        thread.start()
    for thread in [*submitting, *listeners]:
        thread.join(MAX_WAIT_SECONDS)
    for user, listener in zip(users, listeners, strict=True):
        assert [event["seq"] for event in listener.events] == list(range(1, 11))
        assert sorted(event["id"] for event in listener.events) == submitted[user.username]
        assert {event["status"] for event in listener.events} == {"completed"}
        assert listener.missed == []
        shown = user.http.get("/prompts/", params={"limit": 100}).json()
        assert {(prompt["status"], prompt["attempt"]) for prompt in shown} == {("completed", 1)}


def test_both_api_processes_serve(stack: Stack) -> None:
    api = stack.part("gunicorn")
    assert len(api.children()) == 2


def test_flower_shows_the_worker(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.flower_port}"
    login = json.loads((stack.folder / "flower.json").read_text())
    auth = (login["username"], login["password"])
    wait_until(lambda: "local@" in httpx.get(f"{url}/workers", auth=auth).text, what="Flower listing the worker")
    assert httpx.get(f"{url}/workers").status_code == 401
    assert httpx.get(f"{url}/workers", auth=("flower", "wrong")).status_code == 401
    assert login["password"] not in stack.output
    assert login["password"] not in " ".join(stack.part("flower").cmdline())


def test_the_api_and_the_worker_serve_metrics(stack: Stack) -> None:
    served = re.search(r"Metrics    (\S+)/metrics and (\S+)/metrics", stack.output)
    api, worker = (metrics.read(url) for url in served.groups())
    assert api['promptwire_dependency_up{dependency="postgres"}'] == 1
    assert "promptwire_attempts_total" in worker


@pytest.mark.parametrize("words", [["gunicorn"], ["--hostname=local"], ["flower"], ["valkey"], ["postgres"]])
def test_a_process_that_dies_is_restarted_and_the_log_says_so(stack: Stack, words: list[str]) -> None:
    wait_until(lambda: stack.part(*words) is not None)
    stack.part(*words).kill()
    name = {"gunicorn": "api", "--hostname=local": "worker"}.get(words[0], words[0])
    wait_until(lambda: re.search(rf"{name} ended \(killed by SIGKILL\)", stack.output), what=f"a log line about {name}")

    def works() -> bool:
        try:
            return RemoteUser(stack.url) is not None
        except httpx.HTTPError:
            return False

    wait_until(works, what=f"serving without {name}")
    alice = RemoteUser(stack.url)
    assert alice.wait(alice.submit())["status"] == "completed"


def test_data_survives_a_restart_and_stopping_takes_less_than_ten_seconds(home: Path) -> None:
    folder = home.parent / "restarted"
    with running(folder) as first:
        token = first.log_in()
        headers = {"Authorization": f"Bearer {token}", "Prefer": "wait=30"}
        body = {"prompt_text": "What causes ocean tides?"}
        assert (
            httpx.post(f"{first.url}/prompts/", json=body, headers=headers, timeout=MAX_WAIT_SECONDS).status_code == 201
        )
        assert first.stop(signal.SIGINT) < 10
        assert first.process.returncode == 0
    with running(folder) as second:
        headers = {"Authorization": f"Bearer {token}"}
        found = httpx.get(f"{second.url}/prompts/similar/", params={"prompt": "ocean tides"}, headers=headers).json()
        assert [prompt["prompt_text"] for prompt in found] == ["What causes ocean tides?"]
        left = second.children()
    _, alive = psutil.wait_procs(left, timeout=MAX_WAIT_SECONDS)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize("everything", [True, False])
def test_after_kill_9_the_next_start_succeeds(home: Path, everything: bool) -> None:
    folder = home.parent / f"killed-{everything}"
    with running(folder) as first:
        token = first.log_in()
        victims = first.children() if everything else []
        first.process.kill()
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        first.process.wait()
    with running(folder) as second:
        response = httpx.get(f"{second.url}/prompts/", headers={"Authorization": f"Bearer {token}"})
        assert response.json() == []
    first._reading.join()


class TestCannotStart:
    def run(self, **environment: str) -> str:
        """Run it. It must exit with code 1. Returns its error message."""
        result = subprocess.run(
            [sys.executable, "-m", "infra.local", "up"],
            env=os.environ | environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=MAX_WAIT_SECONDS,
            check=False,
        )
        assert result.returncode == 1
        return result.stderr.strip()

    def test_because_a_port_is_taken(self, stack: Stack, tmp_path: Path) -> None:
        said = self.run(PORT=str(stack.port), DATA_DIR=str(tmp_path))
        assert said == f"PORT {stack.port} on 127.0.0.1 is taken: set PORT to another one."

    def test_because_the_folder_is_in_use(self, stack: Stack) -> None:
        assert "Another stack runs on" in self.run(PORT=str(free_port()), DATA_DIR=str(stack.folder))

    def test_because_the_folder_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        said = self.run(PORT=str(free_port()), DATA_DIR=str(tmp_path / "file" / "data"))
        assert "cannot be written" in said
        assert "set DATA_DIR" in said

    def test_because_a_setting_is_wrong(self, tmp_path: Path) -> None:
        ports = {"PORT": str(free_port()), "FLOWER_PORT": str(free_port())}
        assert "LEASE_SECONDS" in self.run(**ports, DATA_DIR=str(tmp_path), LEASE_SECONDS="-1")

    def test_because_the_database_is_unavailable(self, tmp_path: Path) -> None:
        ports = {"PORT": str(free_port()), "FLOWER_PORT": str(free_port())}
        nowhere = {"DATABASE_URL": "postgresql://u:p@127.0.0.1:9/d", "REDIS_URL": "redis://127.0.0.1:9/0"}
        assert "The database cannot be used" in self.run(**ports, **nowhere, DATA_DIR=str(tmp_path))

    @pytest.mark.parametrize("variable", ["PG_BIN", "VALKEY_SERVER"])
    def test_because_a_program_is_missing(self, tmp_path: Path, variable: str) -> None:
        ports = {"PORT": str(free_port()), "FLOWER_PORT": str(free_port())}
        said = self.run(**ports, DATA_DIR=str(tmp_path), **{variable: "/nowhere"})
        assert said.splitlines()[-1].startswith(f"{variable}=/nowhere: there is no program /nowhere")

    def test_because_a_port_is_not_a_number(self, tmp_path: Path) -> None:
        assert "must be numbers" in self.run(PORT="many", DATA_DIR=str(tmp_path))
