"""The supervisor of `make up`: it restarts what dies, and passes on what is printed, with real processes."""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from infra.local.output import MAX_LINES, Output
from infra.local.supervisor import ProcessSpec, Supervisor
from tests.support.servers import MAX_WAIT_SECONDS, wait_until


class Started:
    """A supervisor whose log is a file."""

    def __init__(self, log: Path, on_change: Callable[[list[int]], None] = lambda _: None) -> None:
        self._log = log
        self._descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
        self.supervisor = Supervisor(on_change, Output(self._descriptor))
        self._names: list[str] = []

    def run(self, name: str, code: str, **options: object) -> None:
        self._names.append(name)
        self.supervisor.start(ProcessSpec(name, [sys.executable, "-Sc", code], **options))  # type: ignore[arg-type]

    def log(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.log(), what=f"{text!r} in the log")

    def stop(self) -> None:
        self.supervisor.stop(self._names, 1)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    started = Started(tmp_path / "log")
    yield started
    started.stop()


def test_what_a_process_prints_is_passed_on_without_its_chatter(started: Started) -> None:
    code = "import sys; print('LOG: checkpoint'); sys.stderr.write('FATAL: disk\\n'); input()"
    started.run("postgres", code, chatter=re.compile("checkpoint"))
    started.wait_for("postgres | FATAL: disk\n")
    assert "LOG: checkpoint" not in started.log()


def test_a_process_that_ends_is_repaired_before_it_restarts(started: Started, tmp_path: Path) -> None:
    def repair(last_lines: list[str]) -> str:
        (tmp_path / "repaired").touch()
        return f"repaired after {last_lines[-1]}"

    code = f"import os, sys, time; print('bad data'); os.path.exists({str(tmp_path / 'repaired')!r}) or sys.exit(1); "
    started.run("valkey", code + "print('works', flush=True); time.sleep(600)", repair=repair)
    started.wait_for("valkey   | works")
    assert "up       | valkey ended (exit code 1); restarting in 0.5 s\n" in started.log()
    assert "up       | valkey: repaired after bad data\n" in started.log()
    assert started.supervisor.exits("valkey") == 1


def test_a_repair_that_fails_does_not_keep_the_process_from_restarting(started: Started) -> None:
    def repair(_: list[str]) -> str:
        raise PermissionError(13, "Permission denied")

    started.run("valkey", "print('started')", repair=repair)
    wait_until(lambda: started.log().count("valkey   | started") > 1, what="a restart")
    assert "its data cannot be repaired" in started.log()


def test_a_full_disk_does_not_keep_a_process_from_starting(tmp_path: Path) -> None:
    def on_change(_: list[int]) -> None:
        raise OSError(28, "No space left on device")

    started = Started(tmp_path / "log", on_change)
    started.run("api", "import time; print('works', flush=True); time.sleep(600)")
    started.wait_for("api      | works")
    started.stop()
    assert "the list of processes cannot be written: [Errno 28] No space left on device" in started.log()


def test_files_of_a_process_are_closed_to_other_users(started: Started, tmp_path: Path) -> None:
    file = tmp_path / "file"
    started.run("worker", f"import os; os.mkdir({str(tmp_path / 'folder')!r}); open({str(file)!r}, 'w'); input()")
    wait_until(file.exists, what="the file")
    assert (file.stat().st_mode & 0o777, (tmp_path / "folder").stat().st_mode & 0o777) == (0o600, 0o700)


def test_processes_that_a_killed_process_leaves_do_not_delay_its_restart(started: Started) -> None:
    code = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-Sc', 'import time; time.sleep(600)'])"
    started.run("worker", f"{code}; print('started', flush=True); time.sleep(600)")
    started.wait_for("started")
    (worker,) = (child for child in psutil.Process().children() if "started" in " ".join(child.cmdline()))
    (left,) = worker.children()
    worker.kill()
    wait_until(lambda: started.log().count("worker   | started") > 1, what="a restart")
    assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE


# What `make up` does with signals and its output, with one process that prints without end.
_NOISY = """
import signal, sys, threading
from infra.local.output import Output
from infra.local.supervisor import ProcessSpec, Supervisor

stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())
supervisor = Supervisor(lambda _: None, Output())
supervisor.start(ProcessSpec("noisy", [sys.executable, "-Sc", "while True: print('x' * 1000)"]))
stopping.wait()
supervisor.stop(["noisy"], 5)
supervisor.say("Stopped.")
supervisor.flush()
"""


def test_a_supervisor_with_a_paused_reader_uses_bounded_memory_and_stops() -> None:
    process = psutil.Popen([sys.executable, "-c", _NOISY], stdout=-1)

    def printed_by_child() -> float:
        (child,) = process.children()
        return child.io_counters().write_chars

    wait_until(lambda: len(process.children()) == 1, what="the noisy process")
    wait_until(lambda: printed_by_child() > 10 * MAX_LINES * 1000, what="much output")  # although nobody reads it
    assert process.memory_info().rss < 100e6
    process.send_signal(signal.SIGTERM)
    assert process.wait(MAX_WAIT_SECONDS) == 0
    process.stdout.close()
