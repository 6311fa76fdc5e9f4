"""What keeps `make up` from starting, found before anything is installed: `python3 -m infra.local.preflight`.

It uses the standard library only. `make up` checks the same again, with all settings.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from infra.local.errors import CannotStartError, FolderInUseError

DEFAULTS = {"LISTEN_ADDRESS": "127.0.0.1", "PORT": "8000", "FLOWER_PORT": "5555", "DATA_DIR": ".local"}
_LINE = re.compile(r"""\s*(?:export\s+)?(\w+)\s*=\s*(?:'([^']*)'|"([^"]*)"|([^#\n]*))""")


def main() -> int:
    """Check the lock of the data folder, then the ports. Returns the exit code."""
    given = DEFAULTS | {**_read_dotenv(Path(".env")), **{name: value for name, value in os.environ.items() if value}}
    folder = Path(given["DATA_DIR"])
    try:
        if (folder / "lock").exists():
            with locked(folder):
                pass
        if not _has_leftovers(folder):  # they may have the ports, and `make up` ends them
            check_ports(given["LISTEN_ADDRESS"].strip("[]"), {name: given[name] for name in ("PORT", "FLOWER_PORT")})
    except CannotStartError as error:
        print(error, file=sys.stderr)
        return 1
    except (OSError, ValueError):
        return 0  # `make up` says what is wrong with the folder, or repairs it
    return 0


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[IO[str]]:
    """Lock a data folder; the kernel unlocks it if this process dies. Raises FolderInUseError if it is in use."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FolderInUseError(
                f"Another stack runs on {folder.absolute()}: stop it, or set DATA_DIR, PORT and FLOWER_PORT to others."
            ) from error
        yield lock


def check_ports(host: str, ports: Mapping[str, int | str]) -> None:
    """Check that a server can listen on each port, given by the name of its setting.

    Raises:
        CannotStartError: it cannot. The message names the setting to change.
    """
    if len(ports) > len({str(port).strip() for port in ports.values()}):
        raise CannotStartError(f"{' and '.join(ports)} are the same: set one of them to another port.")
    for name, port in ports.items():
        if not str(port).strip().isdecimal() or not 1 <= int(port) <= 65_535:
            raise CannotStartError(f"{name} must be a whole number from 1 to 65535.")
        error = listen_error(host, int(port))
        if error is None:
            continue
        if error.errno == errno.EADDRINUSE:
            raise CannotStartError(f"{name} {port} on {host} is taken: set {name} to another one.")
        if error.errno == errno.EACCES:
            raise CannotStartError(f"{name} {port} is for the administrator only: set {name} to 1024 or more.")
        raise CannotStartError(f"LISTEN_ADDRESS={host} is not an address of this machine: {error.strerror}.")


def listen_error(host: str, port: int) -> OSError | None:
    """Why no server could listen on this address; None if one could."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def _read_dotenv(file: Path) -> dict[str, str]:
    """Read what matters here of `.env`, in which python-dotenv may read more."""
    if not file.is_file():
        return {}
    found = (_LINE.match(line) for line in file.read_text(errors="replace").splitlines())
    pairs = {line[1]: (line[2] or line[3] or line[4] or "").strip() for line in found if line}
    return {name: value for name, value in pairs.items() if value and name in DEFAULTS}


def _has_leftovers(folder: Path) -> bool:
    """Whether processes of a stack that was killed may still run."""
    file = folder / "processes.json"
    return file.exists() and any(_exists(int(pid)) for pid in json.loads(file.read_text()))


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    sys.exit(main())
