"""PostgreSQL refuses to run as root. Where we are root, it runs as somebody else."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.local.errors import CannotStartError

_CANDIDATES = ("postgres", "nobody")


@dataclass(frozen=True)
class Unprivileged:
    """How to start a process without root's privileges: its command's prefix, Popen's arguments, its files' owner."""

    prefix: tuple[str, ...] = ()
    popen: dict[str, Any] = field(default_factory=dict)
    owner: tuple[int, int] | None = None

    def own(self, *paths: Path) -> None:
        """Gives these to the process's user."""
        if self.owner is not None:
            for path in paths:
                os.chown(path, *self.owner)


def unprivileged(executable: Path, data_dir: Path) -> Unprivileged:
    """How to run `executable` on `data_dir` unprivileged.

    As root, in order: as another user, if that one can reach both; in a user namespace, in which root's files stay
    root's but the process does not see itself as root (for folders that only root may enter, such as /root).

    Raises:
        CannotStartError: neither works here.
    """
    if os.geteuid() != 0:
        return Unprivileged()
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        popen = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        if _runs([str(executable), "--version"], popen) and _runs(["test", "-x", str(data_dir)], popen):
            return Unprivileged(popen=popen, owner=(entry.pw_uid, entry.pw_gid))
    prefix = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
    if shutil.which("unshare") and _runs([*prefix, str(executable), "--version"], {}):
        return Unprivileged(prefix=prefix)
    raise CannotStartError(
        f"PostgreSQL does not run as root, and no other user can enter {data_dir}: "
        "run as an ordinary user, or put the project where others may enter (not under /root)."
    )


def _runs(command: list[str], popen: dict[str, Any]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, **popen).returncode == 0
    except OSError:
        return False
