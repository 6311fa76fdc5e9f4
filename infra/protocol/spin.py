"""Running Spin: it translates the model into a C program, which searches all executions."""

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.protocol.checks import Check

MODEL = Path(__file__).with_name("promptwire.pml")
MAX_SECONDS = 1_200
_MAX_DEPTH = 20_000
_MAX_MEMORY_MIB = 3_072


class SpinError(Exception):
    """Spin or the compiler failed, or the search did not end. The message is what it printed."""


@dataclass(frozen=True, slots=True)
class Result:
    """A complete search, or one that found an error: the error is None, or says which assertion failed."""

    states: int
    seconds: float
    error: str | None


def missing_programs() -> list[str]:
    """Which of the needed programs are not installed."""
    return [name for name in ("spin", "gcc") if shutil.which(name) is None]


def run(check: Check, *more_macros: str) -> Result:
    """Search all executions.

    Raises:
        SpinError: there is no result.
    """
    started = time.monotonic()
    with TemporaryDirectory(prefix="promptwire-spin-") as folder:
        macros = [f"-D{macro}" for macro in (*check.macros, *more_macros)]
        _call(["spin", "-a", *macros, str(MODEL)], folder)
        options = ["-DSAFETY", "-DNOCLAIM"] if check.kind == "safety" else []
        _call(["gcc", "-O1", "-w", "-DCOLLAPSE", f"-DMEMLIM={_MAX_MEMORY_MIB}", *options, "-o", "pan", "pan.c"], folder)
        search = ["-a", "-N", "settles"] if check.kind == "liveness" else []
        output = _call(["./pan", f"-m{_MAX_DEPTH}", "-b", *search], folder)
    return _read(output, time.monotonic() - started)


def _read(output: str, seconds: float) -> Result:
    states = re.search(r"^\s*(\d+) states, stored", output, re.MULTILINE)
    errors = re.search(r"errors: (\d+)", output)
    if states is None or errors is None:
        raise SpinError(output)
    error = re.search(r"^pan:1: (.*?)(?: \(at depth \d+\))?$", output, re.MULTILINE)
    if error is None and (int(errors[1]) or "Search not completed" in output or "too small" in output):
        raise SpinError(output)
    return Result(int(states[1]), seconds, error and error[1])


def _call(command: list[str], folder: str) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=MAX_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise SpinError(f"{command[0]} took longer than {MAX_SECONDS} s.") from error
    if done.returncode != 0:
        raise SpinError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr
