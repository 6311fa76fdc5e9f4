"""CPU and memory of the parts of a service, each with all the processes that it has started."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tests.benchmarks.cpu import family, of_families

Parts = Mapping[str, Sequence[int]]  #: process ids by role, as `Contender.parts`


#: CPU time of the machine that is spent outside the measured parts.
OTHERS = "others"


class Meter:
    """CPU seconds between the start and the end of a phase, by part, and of OTHERS."""

    def __init__(self, parts: Parts) -> None:
        self._clocks = {part: of_families(pids, and_this=False) for part, pids in parts.items()}
        self._at: dict[str, dict[str, float]] = {}

    def on_edge(self, edge: str) -> None:
        found = {part: clock() for part, clock in self._clocks.items()}
        self._at[edge] = found | {OTHERS: _busy() - sum(found.values())}

    @property
    def seconds(self) -> dict[str, float]:
        begin, end = self._at["begin"], self._at["end"]
        return {part: max(end[part] - begin[part], 0.0) for part in end}


def _busy() -> float:
    """Return the CPU seconds that the whole machine has used, including those stolen by its host."""
    times = psutil.cpu_times()._asdict()
    return float(sum(times.values()) - sum(times.get(name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice")))


def peak_rss_mib(parts: Parts) -> dict[str, float]:
    """Return the peak memory of each part's current processes. PostgreSQL's shared buffers count once."""
    return {part: _peak(family(pids)) for part, pids in parts.items()}


def largest_rss_mib(parts: Parts) -> dict[str, float]:
    """Return the peak memory of the largest process of each part."""
    return {part: max(_peak([pid]) for pid in family(pids)) for part, pids in parts.items()}


def _peak(pids: Sequence[int]) -> float:
    own, shared = 0, 0
    for pid in pids:
        with contextlib.suppress(OSError):  # the process has ended meanwhile
            found = dict(re.findall(r"^(VmHWM|RssShmem):\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M))
            mapped = int(found.get("RssShmem", 0))
            own += int(found.get("VmHWM", 0)) - mapped
            shared = max(shared, mapped)
    return round((own + shared) / 1024, 1)
