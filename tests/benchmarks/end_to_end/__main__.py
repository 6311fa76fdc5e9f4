"""`make bench`: whole prompts, from the request to the push, of this service and of others, in alternation.

The whole default run takes about half an hour; `--quick` three minutes.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from tests.benchmarks.end_to_end import api_keys, baseline, latency, overload, report, scalability, targets, throughput
from tests.benchmarks.end_to_end.contenders import PEERS, Lineup, contenders
from tests.benchmarks.end_to_end.scale import SECTIONS, Scale, scale_of
from tests.benchmarks.reporting import machine
from tests.benchmarks.search.process_setup import silence_logs, use_one_thread
from tests.support.servers import Servers

#: PostgreSQL's defaults, except for the number of connections.
_POSTGRES_OPTIONS = ("max_connections=300",)
_SIDE_BY_SIDE = {"throughput", "latency"}
_ALONE = {
    "overload": overload.measure,
    "scalability": scalability.measure,
    "baseline": baseline.measure,
    "api_keys": api_keys.measure,
}


def main() -> None:
    use_one_thread()
    silence_logs()
    arguments = parse()
    servers = Servers("bench", options=_POSTGRES_OPTIONS)
    servers.start()
    try:
        run = Run(servers, scale_of(arguments), write=arguments.write)
        run.all(arguments.sections, arguments.contenders)
    finally:
        servers.stop()
    print("\n" + report.tables(run.measured))
    violations = targets.faults(run.measured).get("ours")
    if violations:
        sys.exit("OUR SERVICE VIOLATED A PROMISE: " + "; ".join(violations))


class Run:
    """Measures section by section. `measured` holds the results so far."""

    def __init__(self, servers: Servers, scale: Scale, *, write: bool) -> None:
        self._servers = servers
        self._scale = scale
        self._write = write
        self.measured: report.Results = {"conditions": {}}

    def all(self, sections: Sequence[str], names: Sequence[str]) -> None:
        if _SIDE_BY_SIDE & set(sections):
            with contenders(self._servers, names) as lineup:
                self._side_by_side(lineup, sections)
        for name, measure in _ALONE.items():
            if name in sections:
                self._section(name, lambda measure=measure: measure(self._servers, self._scale))

    def _side_by_side(self, lineup: Lineup, sections: Sequence[str]) -> None:
        scale = self._scale
        if "throughput" in sections:
            self._section("throughput", lambda: throughput.measure(lineup, scale))
        if "latency" in sections:
            measured = self.measured.get("throughput", {}).get("ours", {}).get("per_second")
            max_rate = measured["median"] if measured else throughput.our_max_rate(lineup, scale)
            self._section("latency", lambda: latency.measure(lineup, scale, max_rate))

    def _section(self, name: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Measure a section, and write its results if the command line says so."""
        conditions = machine(report.LIBRARIES) | {"busy_percent": psutil.cpu_percent(interval=1)}
        if name not in ("overload", "scalability"):
            conditions["rounds"] = self._scale.rounds
        started = time.perf_counter()
        print(f"{name} …", flush=True)
        found = {name: measure(), "conditions": {name: conditions}}
        print(f"{name} took {time.perf_counter() - started:.0f} s", flush=True)
        self.measured |= found | {"conditions": self.measured["conditions"] | found["conditions"]}
        if self._write:
            report.write(found)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.end_to_end", description=__doc__)
    parser.add_argument(
        "--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="the sections to measure"
    )
    parser.add_argument("--contenders", nargs="+", choices=("ours", *PEERS), default=["ours", *PEERS])
    parser.add_argument("--rounds", type=int, help="how often each contender is measured")
    parser.add_argument("--quick", action="store_true", help="a short run of every section, to check that it works")
    parser.add_argument("--full", action="store_true", help="also measure with 10,000,000 stored prompts")
    parser.add_argument("--write", action="store_true", help="replace these sections of the committed results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
