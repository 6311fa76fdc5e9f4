"""Ten thousand sockets on one API process: `make benchmark NAME=sockets` (`ARGS=--quick`, `ARGS=--write`).

The API runs under gunicorn as in a deployment; the clients are a separate process. First every user has one socket,
then a few users have many sockets each.
"""

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from shared.settings import Settings
from tests.benchmarks.reporting import machine
from tests.benchmarks.search.process_setup import silence_logs
from tests.benchmarks.sockets import report
from tests.benchmarks.sockets.driver import Driver
from tests.support import people, processes
from tests.support.many_sockets import Clients, TooFewDescriptorsError, raise_limit
from tests.support.servers import Servers, wait_until


def main() -> None:
    silence_logs()
    arguments = parse()
    sockets, many = (1_000, 50) if arguments.quick else (arguments.sockets, 50)
    try:
        raise_limit(sockets)
    except TooFewDescriptorsError as error:
        raise SystemExit(str(error)) from None
    servers = Servers("bench-sockets")
    results: report.Results = {"machine": machine(["gevent", "gunicorn"])}
    servers.start()
    try:
        for users, per_user in ((sockets, 1), (sockets // many, many)):
            name = f"{users:,} users, {per_user} each"
            print(f"{name} …", flush=True)
            with driver(servers, users) as driven:
                results[name] = measure(driven, per_user, arguments.prompts)
    finally:
        servers.stop()
    print("\n" + report.tables(results))
    if arguments.write:
        report.write(results)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sockets", description=__doc__)
    parser.add_argument("--sockets", type=int, default=10_000, help="number of sockets (default 10,000)")
    parser.add_argument(
        "--prompts", type=int, default=10_000, help="maximum number of answered prompts (default 10,000)"
    )
    parser.add_argument("--quick", action="store_true", help="only 1,000 sockets, to check that it works")
    parser.add_argument("--write", action="store_true", help="replace the committed results")
    return parser.parse_args()


@contextlib.contextmanager
def driver(servers: Servers, users: int) -> Iterator[Driver]:
    """Start an API process with `users` users, and a process of clients."""
    with servers.database() as name:
        settings = servers.settings(
            name, log_level="WARNING", feed_check_seconds=Settings.model_fields["feed_check_seconds"].default
        )
        clients = Clients()
        port = processes.free_port()
        url = f"http://127.0.0.1:{port}"
        with Path(os.devnull).open("wb") as null_device:
            running = processes.start(processes.API, settings, output=null_device, PORT=str(port), API_PROCESSES="1")
        try:
            wait_until(lambda: processes.answers(url), seconds=60, what="the API starting")
            yield Driver(servers, settings, url, running.pid, people.make(settings, users, "user"), clients)
        finally:
            processes.kill(running)
            clients.close()


def measure(driven: Driver, per_user: int, max_prompts: int) -> dict[str, report.Row]:
    """Run all measurements for one distribution of sockets over users."""
    calls = 300
    found = {"requests, no sockets": driven.requests(calls)}
    found["joining"] = driven.join(per_user)
    found["prompts that are answered"] = driven.finish_prompts(max_prompts)
    found["an event of every user at once"] = driven.all_users()
    found["an event of one user"] = driven.one_user(20)
    found["requests, sockets idle"] = driven.requests(calls)
    found["requests, 20 events a second"] = driven.paced(5, 20, lambda: driven.requests(calls))
    found["poll of the feeds"] = driven.feed_check()
    found["afterwards"] = {"resident_mb": round(driven.resident() / 1e6)}
    return found


if __name__ == "__main__":
    main()
