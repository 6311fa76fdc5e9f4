"""The Docker engine: that of this machine, or a temporary one."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

#: Of this machine's variables, what a shell of an operator has. Compose reads variables, so the others would count.
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TERM", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "XDG_RUNTIME_DIR")

# Docker refuses limits above those of the machine, and docker-compose.yml sets some for machines with more.
_RUNC = """#!{python} -IS
import json, os, sys
arguments, limits = sys.argv[1:], {limits}
def lower(path, find_process):
    with open(path) as file:
        configuration = json.load(file)
    for limit in find_process(configuration).get("rlimits", ()):
        most = limits.get(limit["type"], limit["hard"])
        limit.update(hard=min(limit["hard"], most), soft=min(limit["soft"], most))
    with open(path, "w") as file:
        json.dump(configuration, file)
if "create" in arguments and "--bundle" in arguments:
    lower(arguments[arguments.index("--bundle") + 1] + "/config.json", lambda found: found["process"])
if "exec" in arguments and "--process" in arguments:
    lower(arguments[arguments.index("--process") + 1], lambda found: found)
os.execv("{runc}", ["runc", *arguments])
"""


class EngineError(Exception):
    """A command failed or took too long; the message contains its output."""


class Engine:
    """The engine to which the docker command connects with these variables."""

    def __init__(self, variables: dict[str, str] | None = None) -> None:
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        self.variables = kept | (variables or {})

    def run(
        self,
        command: list[str],
        *,
        cwd: Path | None = None,
        stdin: IO[Any] | int | None = subprocess.DEVNULL,
        seconds: float = 600,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with the engine's variables. Its error output is part of `stdout`.

        Raises:
            EngineError: it took more than `seconds`, or it failed and `check` is set.
        """
        try:
            result = subprocess.run(
                command, cwd=cwd, env=self.variables, stdin=stdin, text=True, timeout=seconds, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(f"{' '.join(command)}: {error}") from error
        if check and result.returncode != 0:
            raise EngineError(f"{' '.join(command)}: exit code {result.returncode}\n{result.stdout[-4000:]}")
        return result

    def is_running(self) -> bool:
        """Whether the engine answers, and has Compose and BuildKit."""
        return all(
            self._succeeds(f"docker {command}".split()) for command in ("info", "compose version", "buildx version")
        )

    def _succeeds(self, command: list[str]) -> bool:
        try:
            return self.run(command, seconds=20, check=False).returncode == 0
        except EngineError:
            return False


class TemporaryEngine(Engine):
    """An engine from unpacked packages, with all its files below `folder` and, for its sockets, in /run.

    It must run in its own network and mount namespaces, because it changes interfaces, firewall rules and mounts.
    """

    def __init__(self, packages: Path, folder: Path, cgroup: str) -> None:
        programs = (packages / "usr/bin", packages / "usr/sbin", Path("/usr/sbin"))
        path = os.pathsep.join([str(folder), *map(str, programs), os.environ["PATH"]])
        super().__init__(
            {"PATH": path, "HOME": str(folder), "DOCKER_HOST": "unix:///run/docker.sock", "DOCKER_CONFIG": str(folder)}
        )
        self._log = folder / "dockerd.log"
        self._command = [
            "dockerd", "--host=unix:///run/docker.sock", f"--data-root={folder / 'data'}", "--exec-root=/run/docker",
            "--pidfile=/run/docker.pid", f"--init-path={packages / 'usr/bin/tini-static'}", f"--cgroup-parent={cgroup}",
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        plugins = {"cliPluginsExtraDirs": [str(packages / "usr/libexec/docker/cli-plugins")]}
        (folder / "config.json").write_text(json.dumps(plugins))
        most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        runc = folder / "runc"
        runc.write_text(
            _RUNC.format(python=sys.executable, limits={"RLIMIT_NOFILE": most_files}, runc="/usr/sbin/runc")
        )
        runc.chmod(0o755)

    def start(self) -> None:
        """Start the engine, and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self.variables, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not self.is_running():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise EngineError(f"The engine does not start:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the engine, which stops its containers."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=60)
