"""The containers of docker-compose.yml as processes on this machine: their commands, environment and health checks.

The file is read as plain YAML, because Compose is not among the tests' packages. Values with variables are expanded by
the shell, whose syntax Compose borrows. `make check-infra` checks the same file with Compose itself.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from infra.checks.dockerfile import Dockerfile
from infra.local.privileges import Unprivileged, unprivileged
from tests.support import processes, watchdog
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, Servers

# A container listens on all interfaces; only its networks reach them.
_ALL_INTERFACES = "0.0.0.0"  # noqa: S104


@dataclass(frozen=True)
class Container:
    """A service's command and environment, with this machine's addresses, ports and host name."""

    command: list[str]
    environment: dict[str, str]
    healthcheck: list[str]
    identity: Unprivileged

    @contextlib.contextmanager
    def running(self, log: Path) -> Iterator[subprocess.Popen]:
        """Run the container. Afterwards stop it with SIGTERM, as Docker does; it must stop within 20 seconds."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                self._local(self.command), stdout=output, stderr=output, start_new_session=True, **self._popen
            )
        watchdog.watch(process.pid)
        try:
            yield process
            process.terminate()
            process.wait(timeout=MAX_WAIT_SECONDS)
        finally:
            processes.kill(process)

    def run(self, command: list[str] | None = None, **environment: str) -> subprocess.CompletedProcess:
        """Run the container's command, or another one in it (`docker compose exec`), and wait for it."""
        options = self._popen | {"env": self.environment | environment}
        return subprocess.run(
            self._local(command or self.command), capture_output=True, text=True, timeout=60, check=False, **options
        )

    def is_healthy(self) -> bool:
        return self.run(self.healthcheck).returncode == 0

    def _local(self, command: list[str]) -> list[str]:
        """The command with this environment's Python instead of the image's."""
        python = command[1:] if command[0] == "python" else ["-m", *command]
        return [*self.identity.prefix, sys.executable, *python]

    @property
    def _popen(self) -> dict:
        return self.identity.popen | {"env": self.environment, "cwd": ROOT}


@dataclass(frozen=True)
class Project:
    """docker-compose.yml with this .env, on the tests' servers."""

    servers: Servers
    database: str
    folder: Path
    dotenv: Mapping[str, str]

    def container(self, service: str, *, host: str = "host", **environment: str) -> Container:
        """A container of a service, not yet started; `environment` overrides its own."""
        services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        declared = services[service]
        built = {each["image"]: each["build"]["dockerfile"] for each in services.values() if "build" in each}
        dockerfile = Dockerfile.read(ROOT / built[declared["image"]])
        from_file = dict(self.dotenv) if "env_file" in declared else {}
        own = {name: self._expand(value) for name, value in declared["environment"].items()}
        settings = dockerfile.environment | from_file | own
        settings |= {"PATH": os.environ["PATH"], "HEARTBEAT_FILE": str(self.folder / host)}
        settings |= {name: "127.0.0.1" for name, value in settings.items() if value == _ALL_INTERFACES}
        settings |= {name: self._address(url) for name, url in settings.items() if name.endswith("_URL")} | environment
        check = declared.get("healthcheck", {}).get("test", ["CMD", *dockerfile.healthcheck])[1:]
        port = settings.get("PORT", "8000")
        return Container(
            [
                argument.replace("%h", host).replace(_ALL_INTERFACES, "127.0.0.1")
                for argument in declared.get("command", dockerfile.command)
            ],
            settings,
            [argument.replace(":8000/", f":{port}/") for argument in check],
            unprivileged(Path(sys.executable), self.folder),
        )

    def _expand(self, value: str) -> str:
        """Expand `${X}`, `${X:-default}` and `${X:?message}`."""
        command = ["sh", "-euc", f'printf %s "{value}"']
        return subprocess.run(
            command, env=self.dotenv, capture_output=True, text=True, check=True, timeout=MAX_WAIT_SECONDS
        ).stdout

    def _address(self, url: str) -> str:
        """The URL of the tests' server instead of the container's."""
        return {"postgres": self.servers.postgres.url(self.database), "redis": self.servers.redis_url}.get(
            urlsplit(url).hostname or "", url
        )
