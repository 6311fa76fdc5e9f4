"""Whole requests: our `GET /prompts/similar/`, and `GET /prompts/similar` of a service of the original's design.

Both have the same users, texts and answers, in databases of the same server. Half of the queries are texts that the
caller has stored; the others are new. Our `GET /prompts/ID/` shows what of a search is the request's own cost.
"""

import contextlib
import http.client
import json
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import httpx
import numpy as np
import psycopg2
from sqlalchemy import Connection, func, insert, select, update

from shared.db.engine import make_engine
from shared.db.models import FeedEntry, Prompt, User, VectorLogEntry
from shared.providers.hashing import HashingEmbedder
from shared.settings import Settings
from tests.benchmarks.cpu import of_families, server_pid
from tests.benchmarks.peers import serving
from tests.benchmarks.peers.original import serve as original
from tests.benchmarks.search import data
from tests.benchmarks.search.figures import Turns, in_turns
from tests.support import processes
from tests.support.servers import Servers, wait_until

TOTAL_PROMPTS = 20_000
PROMPTS_PER_USER = 1_000
#: The cheapest useful request of ours, to compare a search with.
POLL = "a poll of ours"


class Served(NamedTuple):
    """A running service, and the caller's access token."""

    url: str
    token: str
    path: str
    pid: int


Row = tuple[str, str, str]  #: username, text, answer


def compare(servers: Servers, turns: Turns) -> dict[str, Any]:
    """Measure both, and a poll, and how many times as long as our search the others take."""
    rows = prompts()
    queries = _queries(rows)
    postgres = server_pid(servers)
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(servers.database())
        settings = servers.settings(name, log_level="INFO", log_format="json")
        served = {"ours": stack.enter_context(ours(settings, rows))}
        if find_spec("django") is None:
            print("Skipping the original's design: Django is not installed (make bench-search installs it).")
        else:
            database_url = stack.enter_context(serving.empty_database(servers))
            served["original"] = stack.enter_context(_original(database_url, rows))
        calls = {
            label: _client(each, [f"{each.path}?{urlencode({'prompt': query})}" for query in queries])
            for label, each in served.items()
        }
        served[POLL] = served["ours"]
        calls[POLL] = _client(served[POLL], [f"/prompts/{number}/" for number in range(1, PROMPTS_PER_USER + 1)])
        cpu = {label: of_families([each.pid, postgres], and_this=False) for label, each in served.items()}
        found: dict[str, list[int]] = {label: [] for label in calls}

        def count(label: str, _: int, answer: Any) -> None:
            found[label].append(1 if label == POLL else len(answer))

        times = in_turns(calls, turns, on_result=count, cpu=cpu)
    return {
        label: {**times[label].figures(), **times[label].ratios(times["ours"])}
        | {"found": round(float(np.mean(found[label])), 2)}
        for label in calls
    }


def prompts() -> list[Row]:
    """Create the stored prompts: the first PROMPTS_PER_USER are the caller's, the others belong to 19 users."""
    rng = np.random.default_rng(20_000)
    texts = data.texts(TOTAL_PROMPTS, rng)
    return [
        (
            f"user-{i // PROMPTS_PER_USER}",
            text,
            f"You asked “{text}”. That is a good question. This answer is simulated.",
        )
        for i, text in enumerate(texts)
    ]


def _queries(rows: list[Row]) -> list[str]:
    rng = np.random.default_rng(1)
    stored = [rows[i][1] for i in rng.integers(PROMPTS_PER_USER, size=data.QUERIES)]
    return [text for pair in zip(stored, data.texts(data.QUERIES, rng), strict=True) for text in pair]


def _client(served: Served, paths: list[str]) -> Callable[[int], Any]:
    """Return a function that gets the next of these paths on a persistent connection, by the client with the least
    overhead.
    """
    url = httpx.URL(served.url)
    connection = http.client.HTTPConnection(url.host, url.port or 80, timeout=120)
    headers = {"Authorization": f"Bearer {served.token}"}

    def ask(number: int) -> Any:
        path = paths[number % len(paths)]
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
        except http.client.RemoteDisconnected:  # the server closes idle connections while another index is loaded
            connection.close()
            return ask(number)
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {body.decode()}")
        return json.loads(body)

    ask(0)  # loads the index
    return ask


@contextlib.contextmanager
def ours(settings: Settings, rows: list[Row]) -> Iterator[Served]:
    """Run our API under gunicorn with these prompts; the first user is the caller."""
    with _gunicorn(settings) as (url, pid):
        caller = processes.RemoteUser(url, rows[0][0])
        _store(settings, rows)
        yield Served(url, caller.tokens["access"], "/prompts/similar/", pid)


@contextlib.contextmanager
def _gunicorn(settings: Settings) -> Iterator[tuple[str, int]]:
    """Like `processes.api`, but without showing the log. Gives the URL and the process id."""
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    with Path(os.devnull).open("wb") as nowhere:
        running = processes.start(processes.API, settings, output=nowhere, PORT=str(port), API_PROCESSES="1")
    try:
        wait_until(lambda: processes.answers(url), what="the API starting")
        yield url, running.pid
    finally:
        processes.kill(running)


def _store(settings: Settings, rows: list[Row]) -> None:
    engine = make_engine(settings, application_name="benchmark", statement_timeout_ms=0)
    with engine.begin() as connection:
        for start in range(0, len(rows), PROMPTS_PER_USER):
            _store_of_one(connection, rows[start : start + PROMPTS_PER_USER])
    engine.dispose()
    _settle(settings.database_url.get_secret_value())


def _store_of_one(connection: Connection, rows: list[Row]) -> None:
    """Store one user's prompts as completions do. The first user is registered already, the others are not."""
    username = rows[0][0]
    user_id = connection.scalar(select(User.id).where(User.username == username)) or connection.scalar(
        insert(User).values(username=username, password_hash="-").returning(User.id)
    )
    embedder = HashingEmbedder()
    at = connection.scalar(select(func.now()))
    prompt = {"user_id": user_id, "status": "completed", "websocket": False, "request_id": "b", "attempt_limit": 5}
    written = [
        {**prompt, "prompt_text": text, "response_text": answer, "seq": seq, "completed_at": at}
        for seq, (_, text, answer) in enumerate(rows, 1)
    ]
    ids = list(connection.scalars(insert(Prompt).returning(Prompt.id, sort_by_parameter_order=True), written))
    entry = {"user_id": user_id, "change": "completed", "at": at}
    connection.execute(insert(FeedEntry), [{**entry, "seq": seq, "prompt_id": each} for seq, each in enumerate(ids, 1)])
    vectors = embedder.embed([text for _, text, _ in rows])
    logged = [
        {"user_id": user_id, "embedder": embedder.name, "seq": seq, "prompt_id": each, "vector": vector.tobytes()}
        for seq, (each, vector) in enumerate(zip(ids, vectors, strict=True), 1)
    ]
    connection.execute(insert(VectorLogEntry), logged)
    connection.execute(update(User).where(User.id == user_id).values(seq=len(rows), embedder=embedder.name))


@contextlib.contextmanager
def _original(database_url: str, rows: list[Row]) -> Iterator[Served]:
    """Run the peer under daphne with these prompts; the first user is the caller."""
    environment = original.environment_of(database_url)
    token = original.fill(environment, rows)[0]
    _settle(database_url)
    with original.daphne(environment) as (url, pid):
        yield Served(url, token, "/prompts/similar", pid)


def _settle(database_url: str) -> None:
    """Have the server do pending work now, not during the measurements."""
    with contextlib.closing(psycopg2.connect(database_url.replace("+psycopg2", ""))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
            cursor.execute("CHECKPOINT")
