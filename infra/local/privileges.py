"""Running PostgreSQL without root's privileges, because it refuses to run as root."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.local.errors import CannotStartError

_USERNAMES = ("postgres", "nobody")


@dataclass(frozen=True)
class Unprivileged:
    """How to start a process without root's privileges: a command prefix, arguments for Popen, a user for its files."""

    prefix: tuple[str, ...] = ()
    popen: dict[str, Any] = field(default_factory=dict)
    owner: tuple[int, int] | None = None

    def own(self, *paths: Path) -> None:
        """Make the process's user the owner of these files."""
        if self.owner is not None:
            for path in paths:
                os.chown(path, *self.owner)


def unprivileged(executable: Path, data_dir: Path) -> Unprivileged:
    """How to run `executable` on `data_dir` unprivileged.

    For root there are two ways, tried in this order. The process runs as another user, if that user can reach both
    paths. Otherwise it runs in a user namespace, where it keeps access to root's files but does not appear as root;
    this works in folders that only root may enter, such as /root.

    Raises:
        CannotStartError: neither works on this machine.
    """
    if os.geteuid() != 0:
        return Unprivileged()
    for name in _USERNAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        popen = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        if _runs([str(executable), "--version"], popen) and _let_through(data_dir.parent, popen):
            return Unprivileged(popen=popen, owner=(entry.pw_uid, entry.pw_gid))
    prefix = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
    if shutil.which("unshare") and _runs([*prefix, str(executable), "--version"], {}):
        return Unprivileged(prefix=prefix)
    raise CannotStartError(
        f"PostgreSQL does not run as root, and no other user can enter {data_dir}: "
        "run as an ordinary user, or move the project to a folder that other users can enter (not under /root)."
    )


def _let_through(folder: Path, popen: dict[str, Any]) -> bool:
    """Let the user pass through a folder that only root can enter, without listing it. Returns whether it can pass."""
    can_pass = ["test", "-x", str(folder)]
    before = folder.stat()
    if _runs(can_pass, popen) or before.st_uid != 0 or before.st_mode & 0o077:
        return _runs(can_pass, popen)
    os.chown(folder, 0, popen["group"])
    folder.chmod(0o710)
    if _runs(can_pass, popen):
        return True
    os.chown(folder, 0, before.st_gid)
    folder.chmod(0o700)
    return False


def _runs(command: list[str], popen: dict[str, Any]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, **popen).returncode == 0
    except OSError:
        return False
