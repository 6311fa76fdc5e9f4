"""The load generator: a separate process, so that its work is not attributed to the services.

It reads one command per line from standard input, and writes a line for each edge of a phase and for each result.
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
    """Controls the load generator's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def do(self, command: str, on_edge: Callable[[str], None] = lambda _: None, **arguments: Any) -> dict[str, Any]:
        """Run a command: a method of `Load`, or `requests`. Return its figures.

        Args:
            on_edge: Called with "begin" and "end" when the measured part of the phase starts and ends.
        """
        self._process.stdin.write(json.dumps({"command": command, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            reply = json.loads(line)
            if "result" in reply:
                return reply["result"]
            on_edge(reply["edge"])
        raise RuntimeError("The load generator has ended.")


@contextlib.contextmanager
def generator() -> Iterator[Generator]:
    """Start a load generator without a service."""
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield Generator(process)
        finally:
            process.kill()


@contextlib.contextmanager
def users_of(contender: Contender, *, active: int | None = None) -> Iterator[Generator]:
    """Start a load generator with the users of a service, each with a socket. The first `active` of them submit."""
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

    def send(**what: Any) -> None:
        print(json.dumps(what), flush=True)

    def on_edge(edge: str) -> None:
        send(edge=edge)

    load: Load | None = None
    while line := await asyncio.to_thread(sys.stdin.readline):
        message = json.loads(line)
        arguments = message["arguments"]
        if message["command"] == "requests":
            result = await requests(**arguments, on_edge=on_edge)
        elif message["command"] == "join":
            load = Load(arguments, on_edge)
            result = await load.join()
        else:
            result = await getattr(load, message["command"])(**arguments)
        send(result=result)


def main() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    gc.disable()  # a garbage collection is a pause that makes pushes look late
    try:
        import uvloop
    except ImportError:
        asyncio.run(_serve())
    else:
        uvloop.run(_serve())


if __name__ == "__main__":
    main()
