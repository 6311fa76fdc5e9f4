"""Packages of Debian 13, from the mirror of this machine. Its own package lists and packages stay as they are."""

import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

_RELEASE = "trixie"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_ENGINE = ("docker.io", "docker-cli", "docker-compose", "docker-buildx", "containerd", "tini")
#: Its Python is the one of our base image. The other images are built on it, too.
_ROOT = (
    "base-files", "base-passwd", "bash", "ca-certificates", "coreutils", "dash", "findutils", "grep", "libc-bin",
    "passwd", "python3", "python3-venv", "sed", "tar", "valkey-server", "valkey-tools",
)  # fmt: skip

_running: set["subprocess.Popen[str]"] = set()
_is_stopped = threading.Event()


class PackageError(Exception):
    """A package could not be fetched or unpacked; the message contains the command's output."""


class UnreachableError(PackageError):
    """The mirror of this machine does not answer."""


def find_mirror() -> str:
    """The address from which this machine gets Debian's packages; empty if it is not a Debian."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"]
    try:
        targets = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.splitlines()
    except OSError:
        return ""
    return targets[0] if targets and _KEYRING.exists() else ""


def unpack(folder: Path, mirror: str) -> None:
    """Unpack the Docker engine into `folder/engine`, and a small Debian with Python and Valkey into `folder/root`.

    Nothing is configured: no script of a package runs. Raises PackageError.
    """
    apt = _private_apt(folder / "apt", mirror)
    try:
        run([*apt, "-oAPT::Update::Error-Mode=any", "update"])
    except PackageError as error:
        raise UnreachableError(str(error)) from error
    run([*apt, "download", *_ENGINE], cwd=folder / "apt/engine")
    # To a machine without packages, all dependencies are missing.
    run([*apt, "--yes", "--no-install-recommends", "--download-only", "install", *_ROOT])
    _extract(folder / "apt/engine", folder / "engine")
    _extract(folder / "apt/cache/archives", folder / "root")
    _complete(folder / "root")


def _complete(root: Path) -> None:
    """Do what the packages' scripts would, as far as it is needed here."""
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
    certificates = sorted((root / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    (root / "etc/ssl/certs/ca-certificates.crt").write_text("".join(each.read_text() for each in certificates))
    (root / "usr/bin/python").symlink_to("python3")


def run(command: list[str], cwd: Path | None = None) -> None:
    """Run a command for at most five minutes. Raise PackageError if it fails, or was stopped."""
    try:
        # In a session of its own, so that all its processes can be killed.
        with subprocess.Popen(
            command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        ) as process:
            _running.add(process)
            try:
                if _is_stopped.is_set():
                    _kill(process)
                output, _ = process.communicate(timeout=300)
            except subprocess.TimeoutExpired:
                _kill(process)
                raise
            finally:
                _running.remove(process)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackageError(str(error)) from error
    if process.returncode != 0:
        raise PackageError(f"{' '.join(command)}:\n{output[-4000:]}")


def stop() -> None:
    """Kill what `run` runs, in whatever thread, and what it will run."""
    _is_stopped.set()
    for process in list(_running):
        _kill(process)


def _kill(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _private_apt(folder: Path, mirror: str) -> list[str]:
    """apt-get with another release and another state than this machine's."""
    for name in ("engine", "state/lists/partial", "cache/archives/partial", "nothing"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {mirror} {_RELEASE} main\n")
    (folder / "status").touch()
    options = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": folder / "nothing",
        "Dir::Etc::preferencesparts": folder / "nothing",
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
    }
    return ["apt-get", "--quiet", *(f"-o{name}={value}" for name, value in options.items())]


def _extract(packages: Path, folder: Path) -> None:
    # base-files has the links /bin, /lib …, which must exist before anything is put there.
    for package in sorted(packages.glob("*.deb"), key=lambda path: (not path.name.startswith("base-files"), path.name)):
        run(["dpkg", "--extract", str(package), str(folder)])
