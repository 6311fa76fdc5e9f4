"""Limiting processes to a share of a core, by control groups of Linux."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

_PERIOD_US = 10_000
_V1, _V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")


class CpuQuotaError(RuntimeError):
    """This machine allows no quotas: there are no control groups, or only root may change them."""


@contextlib.contextmanager
def limited(pids: Sequence[int], share: float) -> Iterator[None]:
    """Give these processes, and those that they start, together this share of a core while the block runs.

    Raises:
        CpuQuotaError
    """
    is_v1 = (_V1 / "cpu.shares").exists()
    root = _V1 if is_v1 else _V2
    group = root / f"promptwire-{os.getpid()}-{pids[0]}"
    quota = int(share * _PERIOD_US)
    try:
        if not is_v1:
            (root / "cgroup.subtree_control").write_text("+cpu")
        group.mkdir()
        if is_v1:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (group / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
        _move(pids, group)
    except OSError as error:
        raise CpuQuotaError(f"no CPU quotas: {error}") from error
    try:
        yield
    finally:
        _move(map(int, (group / "cgroup.procs").read_text().split()), root)
        group.rmdir()


def _move(pids: Iterable[int], group: Path) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            (group / "cgroup.procs").write_text(str(pid))
