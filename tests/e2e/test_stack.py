"""`make up`, as a person would use it: the documented sessions, many users at once, faults, what it refuses."""

import contextlib
import fcntl
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

from infra.local.data_folder import DataFolder
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
        self._may_read = threading.Event()
        self._may_read.set()
        self._has_left = False

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
        seconds = time.monotonic() - started
        self._may_read.set()
        self._reading.join(MAX_WAIT_SECONDS)
        return seconds

    def pause(self) -> None:
        """Stop reading its output, until the pipe is full."""
        fcntl.fcntl(self.process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        self._may_read.clear()
        for _ in range(100):
            httpx.get(f"{self.url}/nothing")

    def leave(self) -> None:
        """Close the pipe of its output."""
        self._has_left = True
        httpx.get(f"{self.url}/nothing")  # so that the reader wakes up

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
            self._may_read.wait(MAX_WAIT_SECONDS)
            if self._has_left:
                break
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
        ["bash", "-euc", session],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=MAX_WAIT_SECONDS,
        check=False,
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


def test_the_session_of_the_readme_works_as_pasted_and_its_prompt_survives_stops_and_kills(home: Path) -> None:
    """One story on one folder, because each start takes seconds."""
    folder = home.parent / "restarted"
    with running(folder, SIMULATED_DELAY="2") as first:
        printed = run_session(ROOT / "README.md", first)
        assert printed.count('"type":"prompt.delta"') > 2  # the text arrived in pieces
        token = first.log_in()
        first.pause()
        user = RemoteUser(first.url)
        assert user.wait(user.submit())["status"] == "completed"  # although nobody reads the output
        assert first.stop(signal.SIGINT) < 30
        assert first.process.returncode == 0

    password = json.loads((folder / "alice.json").read_text())["password"]
    for everything in (False, True):
        with running(folder, APP_ENV="prod" if everything else "dev") as killed:
            assert (password in killed.output) == (not everything)
            assert_has_the_prompt_of_the_session(killed, token)
            victims = killed.children() if everything else []
            killed.process.kill()
            for victim in victims:
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()
            killed.process.wait(MAX_WAIT_SECONDS)
        if everything:
            killed._reading.join(MAX_WAIT_SECONDS)

    with running(folder) as last:
        assert_has_the_prompt_of_the_session(last, token)
        left = last.children()
        last.leave()
        assert last.process.wait(MAX_WAIT_SECONDS) == 1
        last._reading.join(MAX_WAIT_SECONDS)
    with DataFolder(folder).locked():
        pass
    _, alive = psutil.wait_procs(left, timeout=MAX_WAIT_SECONDS)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def assert_has_the_prompt_of_the_session(stack: Stack, token: str) -> None:
    """Check that a login of before the restart is still valid, and that the prompt is found."""
    headers = {"Authorization": f"Bearer {token}"}
    found = httpx.get(f"{stack.url}/prompts/similar/", params={"prompt": "salt in the sea"}, headers=headers).json()
    assert [prompt["prompt_text"] for prompt in found] == ["Why is the sea salty?"]


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


def test_each_part_logs_one_line_when_it_starts(stack: Stack) -> None:
    before, _, _ = stack.output.partition("Promptwire is ready.")
    # Apart from warnings: a busy machine has slow requests.
    names = [line.split()[0] for line in before.splitlines() if "[warning " not in line]
    assert sorted(name for name in names if name != "up") == ["api", "flower", "postgres", "valkey", "worker"], before


def test_pages_files_and_health_checks_are_not_logged(stack: Stack) -> None:
    quiet = ["/", "/static/app.js", "/docs", "/livez", "/readyz", "/metrics", "/openapi.json"]
    assert {path: httpx.get(f"{stack.url}{path}").status_code for path in quiet} == dict.fromkeys(quiet, 200)
    for missing in ("/static/nothing.js", "/nothing-else"):
        httpx.get(f"{stack.url}{missing}")
        wait_until(lambda path=missing: f"path={path} " in stack.output, what="a log line")
    logged = set(re.findall(r"\] request \[.* path=(\S+) ", stack.output))
    assert logged & set(quiet) == set()


def test_other_users_can_read_nothing_of_the_folder(stack: Stack) -> None:
    """If PostgreSQL runs as another user, its group may pass through the folder, without listing it."""
    allowed = {stack.folder: 0o710}
    for path in (stack.folder, *stack.folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # servers remove files meanwhile
            others = path.lstat().st_mode & 0o077 & ~allowed.get(path, 0)
            assert path.is_symlink() or others == 0, f"{path} {others:o}"


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
