"""The containers of docker-compose.yml as processes on this machine: their commands, environment and health checks."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from infra.checks.containers import Dockerfile, read_compose
from infra.local.privileges import Unprivileged, unprivileged
from tests.support import processes, watchdog
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, Servers

# Where a container listens, which only its networks reach.
_EVERYWHERE = "0.0.0.0"  # noqa: S104


@dataclass(frozen=True)
class Container:
    """One service's command and environment. What differs on this machine: addresses, ports, the name of the host."""

    command: list[str]
    environment: dict[str, str]
    healthcheck: list[str]
    identity: Unprivileged

    @contextlib.contextmanager
    def running(self, log: Path) -> Iterator[subprocess.Popen]:
        """The process; in the end it is told to stop, as Docker would, and must."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                self._here(self.command), stdout=output, stderr=output, start_new_session=True, **self._popen
            )
        watchdog.watch(process.pid)
        try:
            yield process
            process.terminate()
            process.wait(timeout=MAX_WAIT_SECONDS)
        finally:
            processes.kill(process)

    def run(self, command: list[str] | None = None, **environment: str) -> subprocess.CompletedProcess:
        """The container's command, or another in it (`docker compose exec`), to its end."""
        options = self._popen | {"env": self.environment | environment}
        return subprocess.run(
            self._here(command or self.command), capture_output=True, text=True, timeout=60, check=False, **options
        )

    def is_healthy(self) -> bool:
        return self.run(self.healthcheck).returncode == 0

    def _here(self, command: list[str]) -> list[str]:
        """With this environment's Python in place of the image's."""
        python = command[1:] if command[0] == "python" else ["-m", *command]
        return [*self.identity.prefix, sys.executable, *python]

    @property
    def _popen(self) -> dict:
        return self.identity.popen | {"env": self.environment, "cwd": ROOT}


@dataclass(frozen=True)
class Project:
    """docker-compose.yml with this .env, on the servers of the tests."""

    servers: Servers
    database: str
    folder: Path
    dotenv: Mapping[str, str]

    def container(self, service: str, *, host: str = "host", **environment: str) -> Container:
        """A container of a service, not yet started; `environment` is what differs here."""
        made = read_compose(ROOT / "docker-compose.yml", self.dotenv)["services"][service]
        dockerfile = Dockerfile.read(ROOT / made["build"]["dockerfile"])
        settings = dockerfile.environment | ({**self.dotenv} if "env_file" in made else {}) | made["environment"]
        settings |= {"PATH": os.environ["PATH"], "HEARTBEAT_FILE": str(self.folder / host)}
        settings |= {name: "127.0.0.1" for name, value in settings.items() if value == _EVERYWHERE}
        settings |= {name: self._address(url) for name, url in settings.items() if name.endswith("_URL")} | environment
        check = made.get("healthcheck", {}).get("test", ["CMD", *dockerfile.healthcheck])[1:]
        port = settings.get("PORT", "8000")
        return Container(
            [
                argument.replace("%h", host).replace(_EVERYWHERE, "127.0.0.1")
                for argument in made.get("command", dockerfile.command)
            ],
            settings,
            [argument.replace(":8000/", f":{port}/") for argument in check],
            unprivileged(Path(sys.executable), self.folder),
        )

    def _address(self, url: str) -> str:
        """That of the tests' server instead of the container's."""
        return {"postgres": self.servers.postgres.url(self.database), "redis": self.servers.redis_url}.get(
            urlsplit(url).hostname or "", url
        )
