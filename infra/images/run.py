"""Run a command in the files of an image as a container would: read-only, as its user, with its environment only."""

import subprocess
from pathlib import Path
from typing import IO

from infra.images.build import Image

# Runs in its own mount namespace, so no mount is left behind. `exec` keeps the process id.
_ENTER = """
mount --bind "$1" "$1"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/dev/shm"
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/tmp"
mount -o remount,bind,ro "$1"
root=$1 user=$2; shift 2
exec chroot --userspec="$user" "$root" env -i -C /srv/promptwire "$@"
"""


def start(image: Image, command: list[str], environment: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a command on this machine's network."""
    return subprocess.Popen(_enter(image, command, environment), stdout=log, stderr=log, start_new_session=True)


def execute(image: Image, command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command and wait for it, as `docker compose run` does."""
    command_line = _enter(image, command, environment)
    return subprocess.run(command_line, capture_output=True, text=True, timeout=120, check=False)


def execute_beside(process: subprocess.Popen[bytes], image: Image, command: list[str]) -> int:
    """Run a command in the mount namespace and environment of a running process, as a health check runs."""
    raw = Path(f"/proc/{process.pid}/environ").read_bytes().decode()
    environment = [pair for pair in raw.split("\0") if pair]
    user = image.config["User"]
    chroot = ["chroot", f"--userspec={user}", str(image.files), "env", "-i", "-C", "/srv/promptwire"]
    command_line = ["nsenter", f"--mount=/proc/{process.pid}/ns/mnt", "--", *chroot, *environment, *command]
    return subprocess.run(command_line, capture_output=True, timeout=30, check=False).returncode


def _enter(image: Image, command: list[str], environment: dict[str, str]) -> list[str]:
    variables = [*image.config["Env"], *(f"{name}={value}" for name, value in environment.items())]
    shell = ["unshare", "--mount", "--", "sh", "-euc", _ENTER, "sh"]
    return [*shell, str(image.files), image.config["User"], *variables, *command]
