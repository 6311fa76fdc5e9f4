"""Starts the peer."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy.engine import make_url

from tests.benchmarks.cpu import server_pid
from tests.benchmarks.end_to_end.contender import Account, Contender
from tests.benchmarks.peers import serving
from tests.support import processes
from tests.support.servers import ROOT, Servers

_PEER = "tests.benchmarks.peers.original"


@contextlib.contextmanager
def serve(servers: Servers, accounts: int) -> Iterator[Contender]:
    """Run the peer with `accounts` users. Raise `serving.NotInstalledError` if a library is missing."""
    serving.require("django", "channels", "daphne", "rest_framework", "rest_framework_simplejwt")
    names = serving.usernames(accounts)
    with serving.empty_database(servers) as database_url:
        environment = environment_of(database_url)
        tokens = fill(environment, [[name] for name in names])
        users = [Account(*each) for each in zip(names, tokens, strict=True)]
        with daphne(environment) as (url, pid):
            serving.wait_until_it_works(url, users.pop())
            yield Contender("original", url, users, {"api": [pid], "postgres": [server_pid(servers)]})


def environment_of(database_url: str) -> dict[str, str]:
    url = make_url(database_url)
    return {
        "PEER_DATABASE": url.database or "",
        "PEER_USER": url.username or "",
        "PEER_PASSWORD": url.password or "",
        "PEER_HOST": url.host or "",
        "PEER_PORT": str(url.port),
    }


def fill(environment: Mapping[str, str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Store these users and prompts (see `fill.py`). Return a token of each user."""
    filled = subprocess.run(
        [sys.executable, "-m", f"{_PEER}.fill"],
        input="".join(json.dumps(row) + "\n" for row in rows),
        env=os.environ | environment,
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return filled.stdout.split()


@contextlib.contextmanager
def daphne(environment: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Run daphne on the stored data. Yield its URL and process id."""
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ("-b", "127.0.0.1", "-p", str(port), f"{_PEER}.asgi:application")
    with serving.running("daphne", *arguments, environment=environment) as pid:
        serving.wait_until_it_listens(url)
        yield url, pid
