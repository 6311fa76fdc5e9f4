"""Starts the peer."""

from contextlib import AbstractContextManager

from tests.benchmarks.end_to_end.contender import Contender
from tests.benchmarks.peers import serving
from tests.benchmarks.peers.one_task_each.serve import gunicorn, make_users
from tests.support.servers import Servers

_PEER = "tests.benchmarks.peers.dramatiq_flask"
_KEYSPACE = 4
_WORKER = ["--processes", "2", "--threads", "8", "--use-spawn"]


def serve(servers: Servers, accounts: int) -> AbstractContextManager[Contender]:
    """Run the peer with `accounts` users. Raise `serving.NotInstalledError` if the library is missing."""
    serving.require("dramatiq")
    return serving.with_queue(
        servers,
        "dramatiq_flask",
        _KEYSPACE,
        accounts,
        make_users=make_users,
        api=gunicorn(f"{_PEER}.api:app"),
        worker=("dramatiq", *_WORKER, f"{_PEER}.actors"),
    )
