"""What the test must leave as it was on this machine."""

import contextlib
import os
import subprocess
import time
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OF_OTHERS = ("mounts", "process namespaces")


def has_writable_cgroups() -> bool:
    """Whether control groups can be made. (With version 1, each controller has a folder.)"""
    return any(os.access(path, os.W_OK) for path in (_CGROUPS, *_CGROUPS.glob("*/")))


def observe(cgroup: str) -> dict[str, set[str]]:
    """What there is of each kind of thing that an engine makes."""
    return {
        "network interfaces": _names("/sys/class/net"),
        "firewall rules": _lines(["iptables-save"]) | _lines(["ip6tables-save"]),
        "IP forwarding": {Path("/proc/sys/net/ipv4/ip_forward").read_text()},
        "mounts": set(Path("/proc/self/mounts").read_text().splitlines()),
        "control groups": set(map(str, _find_cgroups(cgroup))),
        "process namespaces": _process_namespaces(),
        "package lists": _names("/var/lib/apt/lists"),
    }


def differences(before: dict[str, set[str]], after: dict[str, set[str]]) -> list[str]:
    """A sentence for each kind that differs. Other programs may end their processes and mounts meanwhile."""
    return [
        f"The {kind} of this machine differ: {sorted(now - before[kind])} instead of {sorted(before[kind] - now)}."
        for kind, now in after.items()
        if now - before[kind] or (before[kind] - now and kind not in _OF_OTHERS)
    ]


def find_child_namespace(pid: int) -> str:
    """The process namespace of the children of a process; empty if it has ended."""
    try:
        return str(Path(f"/proc/{pid}/ns/pid_for_children").readlink())
    except OSError:
        return ""


def wait_for_end(namespace: str) -> None:
    """Wait until no process is left in a namespace whose first process was killed."""
    deadline = time.monotonic() + 60
    while namespace in _process_namespaces() and time.monotonic() < deadline:
        time.sleep(0.1)


def remove_cgroups(cgroup: str) -> None:
    """Remove the control groups that ended containers have left. They are empty, but perhaps only in a moment."""
    deadline = time.monotonic() + 10
    while (found := _find_cgroups(cgroup)) and time.monotonic() < deadline:
        for top in found:
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
        time.sleep(0.1)


def _names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def _find_cgroups(name: str) -> list[Path]:
    return [Path(folder) / name for folder, folders, _ in os.walk(_CGROUPS) if name in folders]


def _process_namespaces() -> set[str]:
    """The namespaces in which processes run: those of containers have others than this one."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.add(str((process / "ns/pid").readlink()))
    return found


def _lines(command: list[str]) -> set[str]:
    """The lines of an output, without comments and the counters of packets."""
    output = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
    return {line.partition(" [")[0] for line in output.splitlines() if not line.startswith("#")}
