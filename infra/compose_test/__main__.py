"""`make compose-test`. Without a Docker engine, and where none can be unpacked, it says so and does nothing."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from types import FrameType

from infra.checks.tools import ROOT
from infra.compose_test import debian, machine, stand_ins, wheels
from infra.compose_test.deployment import Deployment
from infra.compose_test.engine import Engine
from infra.compose_test.scenario import run_scenario
from infra.local.data_folder import is_free

_TOOLS = {
    "apt-get": "apt", "dpkg": "dpkg", "unshare": "util-linux", "ip": "iproute2", "runc": "runc", "iptables": "iptables",
}  # fmt: skip
_NAMESPACES = ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
_MAX_SECONDS = 1_800
_SKIPPED = "SKIPPED: Docker Compose was not tested. No Docker engine runs here, and"
_NEEDED_BYTES = 4 * 1024**3  # in the folder of temporary files
_PORTS = range(18_000, 18_100)  # on a machine where other programs run
_PYTHON = "3.13"  # of the base image


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    engine = Engine()
    if engine.is_running():
        return test_with(engine)
    if problem := _find_obstacle():
        print(f"{_SKIPPED} {problem}.")
        return 0
    return test_with_temporary_engine()


def test_with(engine: Engine) -> int:
    """Run the scenario on this machine's engine, beside what else runs there. Delete what it has created."""
    tag = f"test-{secrets.token_hex(4)}"
    variables = {"COMPOSE_PROJECT_NAME": f"promptwire-{tag}", "TAG": tag}
    ports = (str(port) for port in _PORTS if is_free("127.0.0.1", port))
    variables |= {"PORT": next(ports), "FLOWER_PORT": next(ports)}
    with TemporaryDirectory(prefix="promptwire-compose-") as folder:
        deployment = Deployment(Path(folder) / "promptwire", engine, variables)
        try:
            return run_scenario(deployment, engine)
        finally:
            deployment.run("docker compose down --volumes", check=False)
            deployment.run(f"docker image rm promptwire-api:{tag} promptwire-worker:{tag}", check=False)


def test_with_temporary_engine() -> int:
    """Unpack an engine, and run the scenario on it in namespaces, which end with everything that was started there."""
    cgroup = f"promptwire-{os.getpid()}"
    before = machine.observe(cgroup)
    with TemporaryDirectory(prefix="promptwire-compose-") as name:
        folder = Path(name)
        started_at = time.monotonic()
        try:
            _prepare(folder)
        except debian.UnreachableError as error:
            print(f"{_SKIPPED} Debian's packages cannot be fetched: {error}")
            return 0
        except debian.PackageError as error:
            print(error, file=sys.stderr)
            return 1
        seconds = time.monotonic() - started_at
        print(f"{seconds:7.1f} s  A Docker engine, a Debian and the Python packages are unpacked.", flush=True)
        try:
            result = _run_inside(folder, cgroup)
        finally:
            machine.remove_cgroups(cgroup)
    problems = machine.differences(before, machine.observe(cgroup))
    print("\n".join(problems) or "The machine is as it was.")
    return result or bool(problems)


def _find_obstacle() -> str:
    """Why no engine can be unpacked; empty if it can."""
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool) is None})
    if os.geteuid() != 0:
        return "only root can start one"
    if missing:
        return f"one cannot be unpacked without: apt-get install {' '.join(missing)}"
    if not debian.find_mirror():
        return "one can be unpacked on a Debian only"
    if shutil.disk_usage(gettempdir()).free < _NEEDED_BYTES:
        return f"one needs {_NEEDED_BYTES // 1024**3} GiB in {gettempdir()}: set TMPDIR to a folder with more space"
    if not machine.has_writable_cgroups():
        return "one needs control groups, which cannot be written here"
    allowed = subprocess.run([*_NAMESPACES, "true"], capture_output=True, timeout=60, check=False).returncode == 0
    return "" if allowed else "one needs namespaces, which are not allowed here"


def _prepare(folder: Path) -> None:
    """Download and unpack everything, at the same time. Raises PackageError.

    Also if it is interrupted, all of it has ended.
    """
    with ThreadPoolExecutor() as pool:
        work = [
            pool.submit(debian.unpack, folder, debian.find_mirror()),
            pool.submit(wheels.download, sys.executable, ROOT / "requirements.txt", folder / "wheels", _PYTHON),
        ]
        try:
            for each in work:
                each.result()
        except BaseException:
            debian.stop()
            raise
    stand_ins.add_wheels(folder / "root", folder / "wheels")


def _run_inside(folder: Path, cgroup: str) -> int:
    """Run `inside` as the child of an init process. Whatever way this process ends, all of them are killed."""
    init = [str(folder / "engine/usr/bin/tini-static"), "--"]
    inside = [sys.executable, "-m", "infra.compose_test.inside", str(folder), cgroup]
    command = ["setpriv", "--pdeathsig", "KILL", *_NAMESPACES, *init, *inside]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        return process.wait(timeout=_MAX_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"The test took more than {_MAX_SECONDS} s.", file=sys.stderr)
        return 1
    finally:
        namespace = machine.find_child_namespace(process.pid)
        process.kill()
        process.wait()
        machine.wait_for_end(namespace)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Interrupted; everything that was started has ended.")
