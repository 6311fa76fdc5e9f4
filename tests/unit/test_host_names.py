"""In an API process the names of PostgreSQL's servers are looked up without stopping the other greenlets."""

import time

import gevent
import psycopg2
import pytest
from gevent import socket

from api.server import gevent_psycopg2
from shared.db.connector import _with_addresses
from tests.support.servers import MAX_WAIT_SECONDS

NAMES = {"one": ["10.0.0.1"], "two": ["10.0.0.2", "fd00::2"]}


@pytest.fixture(autouse=True)
def _no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gevent_psycopg2._Server, "stalled_until", 0.0)


def look_up(name: str) -> list[str]:
    if name not in NAMES:
        raise psycopg2.OperationalError(f"{name} is unknown")
    return NAMES[name]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"host": "one", "port": 5432}, {"host": "one", "hostaddr": "10.0.0.1", "port": "5432"}),
        ({"host": "two"}, {"host": "two,two", "hostaddr": "10.0.0.2,fd00::2", "port": ","}),
        (
            {"host": "one,127.0.0.1,two", "port": "1,2,3"},
            {"host": "one,127.0.0.1,two,two", "hostaddr": "10.0.0.1,,10.0.0.2,fd00::2", "port": "1,2,3,3"},
        ),
        ({"host": "missing,one", "port": "1,2"}, {"host": "one", "hostaddr": "10.0.0.1", "port": "2"}),
        ({"host": "127.0.0.1", "port": 1}, {"host": "127.0.0.1", "port": 1}),
        ({"host": "::1", "port": 1}, {"host": "::1", "port": 1}),
        ({"host": "/run/postgresql"}, {"host": "/run/postgresql"}),
        ({"host": "one", "hostaddr": "10.9.9.9"}, {"host": "one", "hostaddr": "10.9.9.9"}),
        ({}, {}),
    ],
)
def test_each_address_of_a_name_becomes_a_server(given: dict[str, object], expected: dict[str, object]) -> None:
    assert _with_addresses(given | {"dbname": "d"}, look_up) == expected | {"dbname": "d"}
    assert _with_addresses(given, None) == given


def test_without_any_address_the_error_names_the_host() -> None:
    with pytest.raises(psycopg2.OperationalError, match="missing is unknown"):
        _with_addresses({"host": "missing,gone"}, look_up)


def test_a_lookup_lets_others_run_and_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: gevent.sleep(MAX_WAIT_SECONDS))
    monkeypatch.setattr(gevent_psycopg2, "WAIT_TIMEOUT_SECONDS", 0.2)
    turns = []
    other = gevent.spawn(lambda: [(turns.append(1), gevent.sleep(0.01)) for _ in range(5)])
    started = time.monotonic()
    with pytest.raises(psycopg2.OperationalError, match=r"the name db was not found within 0\.2 s"):
        gevent_psycopg2.look_up("db")
    other.join(MAX_WAIT_SECONDS)
    assert len(turns) == 5
    with pytest.raises(psycopg2.OperationalError, match="recently"):  # at once, instead of waiting in turn
        gevent_psycopg2.look_up("db")
    assert time.monotonic() - started < MAX_WAIT_SECONDS


def test_a_real_name_is_found_and_an_unknown_one_is_an_error() -> None:
    assert "127.0.0.1" in gevent_psycopg2.look_up("localhost")
    with pytest.raises(psycopg2.OperationalError, match=r"the name nothing\.invalid was not found"):
        gevent_psycopg2.look_up("nothing.invalid")
