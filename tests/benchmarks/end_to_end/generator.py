"""The load generator: a process of its own, so that what it does is not taken for the services' work.

It reads a command a line from its standard input, and writes a line for each edge of a phase and for each result.
"""

import asyncio
import contextlib
import gc
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tests.benchmarks.end_to_end.contender import Contender
from tests.support.servers import ROOT


class Generator:
    """Tells the process what to do."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def do(self, command: str, on_edge: Callable[[str], None] = lambda _: None, **arguments: Any) -> dict[str, Any]:
        """Has it do what `Load` and `requests` offer under this name. Returns the figures.

        Args:
            on_edge: Is called with "begin" and "end" of the part of the phase that counts.
        """
        self._process.stdin.write(json.dumps({"command": command, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            told = json.loads(line)
            if "result" in told:
                return told["result"]
            on_edge(told["edge"])
        raise RuntimeError("The load generator has ended.")


@contextlib.contextmanager
def generator() -> Iterator[Generator]:
    """One that knows no service yet."""
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield Generator(process)
        finally:
            process.kill()


@contextlib.contextmanager
def users_of(contender: Contender, *, active: int | None = None) -> Iterator[Generator]:
    """One whose users are those of the service, each with a socket. Of them, the first `active` submit."""
    with generator() as made:
        accounts = [(account.username, account.token) for account in contender.accounts]
        made.do(
            "join",
            url=contender.url,
            submit_path=contender.submit_path,
            accounts=accounts,
            active=active or len(accounts),
        )
        yield made


async def _serve() -> None:
    from tests.benchmarks.end_to_end.load import Load, requests

    def tell(**what: Any) -> None:
        print(json.dumps(what), flush=True)

    def on_edge(edge: str) -> None:
        tell(edge=edge)

    load: Load | None = None
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        arguments = asked["arguments"]
        if asked["command"] == "requests":
            result = await requests(**arguments, on_edge=on_edge)
        elif asked["command"] == "join":
            load = Load(arguments, on_edge)
            result = await load.join()
        else:
            result = await getattr(load, asked["command"])(**arguments)
        tell(result=result)


def main() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.disable()  # a collection would be a pause in which pushes seem to be late
    try:
        import uvloop
    except ImportError:
        asyncio.run(_serve())
    else:
        uvloop.run(_serve())


if __name__ == "__main__":
    main()
