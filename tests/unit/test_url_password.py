"""Passwords of URLs, given in them or apart: any character of them reaches the server."""

from urllib.parse import unquote

import pytest
from redis import Redis
from sqlalchemy.engine import make_url

from shared.settings import load_settings
from shared.settings.url_password import with_password

HARD = "a/b@c:d?e#f%g+h ü$"


@pytest.mark.parametrize(
    ("url", "becomes"),
    [
        ("postgresql://u@h:5432/d", "postgresql://u:x%2Fy@h:5432/d"),
        ("postgresql://u@h1:1,h2:2/d?sslmode=require", "postgresql://u:x%2Fy@h1:1,h2:2/d?sslmode=require"),
        ("postgresql://u:own@h/d", "postgresql://u:own@h/d"),
        ("postgresql://u:@h/d", "postgresql://u:@h/d"),
        ("postgresql://[::1]:5432/d", "postgresql://:x%2Fy@[::1]:5432/d"),
        ("redis://h:6379/0", "redis://:x%2Fy@h:6379/0"),
        ("rediss://u@h/0", "rediss://u:x%2Fy@h/0"),
        ("garbage", "garbage"),
        ("", ""),
    ],
)
def test_a_password_is_inserted_where_the_url_has_none(url: str, becomes: str) -> None:
    assert with_password(url, "x/y") == becomes
    assert with_password(url, "") == url


def test_no_character_of_a_password_breaks_the_url() -> None:
    database = make_url(with_password("postgresql://u@h:5432/d", HARD))
    assert (database.password, database.host, database.port, database.database) == (HARD, "h", 5432, "d")
    with Redis.from_url(with_password("redis://h:6379/0", HARD)) as client:
        assert client.get_connection_kwargs()["password"] == HARD


@pytest.mark.parametrize("password", ["a/b", "a#b", "a?b", "a[b", "1/b", "a%b", "a%2Fb", "a+b c"])
def test_a_password_in_the_url_of_redis_is_quoted(password: str) -> None:
    settings = load_settings(database_url="postgresql://", redis_url=f"rediss://:{password}@h:1/2", jwt_secret_key="x")
    with Redis.from_url(settings.redis_url.get_secret_value()) as client:
        given = client.get_connection_kwargs()
    assert (given["password"], given["host"], given["port"], given["db"]) == (unquote(password), "h", 1, 2)
