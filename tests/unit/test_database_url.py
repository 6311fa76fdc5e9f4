"""DATABASE_URL, also with several hosts."""

import pytest
from sqlalchemy.engine import make_url

from infra.doctor.settings import secrets
from shared.db.connector import Connector
from shared.settings import database_url
from tests.support.servers import make_settings


@pytest.mark.parametrize(
    ("url", "host", "hosts"),
    [
        ("postgres://u:p@h:5433/d", "h", ()),
        ("postgresql://u:p@h/d", "h", ()),
        ("postgresql+psycopg2://u:p@[::1]:5432/d", "::1", ()),
        ("postgresql://u:p@/d?host=/run/postgresql", None, ()),
        ("postgresql://u:p@h1:5433,h2/d", None, (("h1", "5433"), ("h2", "5432"))),
        ("postgresql://u:p@[::1]:1,[fe80::1]:2/d?sslmode=require", None, (("::1", "1"), ("fe80::1", "2"))),
        ("postgresql://h1,h2,h3", None, (("h1", "5432"), ("h2", "5432"), ("h3", "5432"))),
        ("postgresql://u:a,b@h/d", "h", ()),  # a comma in the password
    ],
)
def test_a_url_is_parsed_as_libpq_parses_it(url: str, host: str | None, hosts: tuple[tuple[str, str], ...]) -> None:
    parsed = database_url.parse(url)
    assert (parsed.url.drivername, parsed.url.host, parsed.hosts) == ("postgresql+psycopg2", host, hosts)


def test_everything_but_the_hosts_is_kept() -> None:
    parsed = database_url.parse("postgresql://u:p%40@h1,h2/d?target_session_attrs=primary&sslmode=require").url
    assert parsed == make_url("postgresql+psycopg2://u:p%40@/d?target_session_attrs=primary&sslmode=require")


@pytest.mark.parametrize(
    "url", ["", "h", "mysql://h/d", "postgresql://u:p@h:x/d", "postgresql://h1,/d", "postgresql://h1,h2:x/d"]
)
def test_a_url_that_is_not_of_postgres_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(ValueError, match="this is not a PostgreSQL URL; write it like"):
        database_url.parse(url)


def test_the_doctor_reads_all_hosts() -> None:
    remote = make_settings(database_url="postgresql://u@127.0.0.1,db.example.com/d", redis_url="redis://localhost")
    assert [found.problem for found in secrets(remote)] == ["DATABASE_URL has no password."]
    local = make_settings(database_url="postgresql://u@127.0.0.1,localhost/d", redis_url="redis://localhost")
    assert not list(secrets(local))


def test_a_connector_without_hosts_leaves_the_url_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psycopg2.connect", lambda *arguments, **parameters: (arguments, parameters))
    assert Connector(())(None, None, ["dsn"], {"host": "h"}) == (("dsn",), {"host": "h"})


@pytest.mark.parametrize(
    ("url", "changed"),
    [
        ("postgresql://u:p%40@db:5432/name", "postgresql://u:p%40@db:5432/a%2Fb"),
        ("postgres://db1:5432,db2/name?sslmode=require", "postgres://db1:5432,db2/a%2Fb?sslmode=require"),
        ("postgresql+psycopg2://[::1]", "postgresql+psycopg2://[::1]/a%2Fb"),
        ("postgresql://u@?host=/run", "postgresql://u@/a%2Fb?host=/run"),
    ],
)
def test_the_database_of_a_url_can_be_changed(url: str, changed: str) -> None:
    assert database_url.with_database(url, "a/b") == changed
