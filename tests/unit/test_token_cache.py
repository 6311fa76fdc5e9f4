"""What an API process remembers of access tokens."""

import time
from uuid import uuid4

import pytest

from api.auth import token_cache as module
from api.auth.token_cache import Principal, TokenCache


def caller(user_id: int = 1, *, seconds: float = 60) -> Principal:
    return Principal(user_id, f"user-{user_id}", uuid4(), time.time() + seconds)


@pytest.fixture
def logins() -> TokenCache:
    made = TokenCache(max_tokens=3)
    made.confirm([])
    return made


def test_a_token_that_was_found_good_is_known(logins: TokenCache) -> None:
    alice = caller()
    logins.remember("t", alice, logins.version)
    assert logins.find("t") is alice
    assert logins.find("other") is None


def test_not_after_it_has_expired(logins: TokenCache) -> None:
    logins.remember("t", caller(seconds=-1), logins.version)
    assert logins.find("t") is None


def test_not_after_a_login_of_its_user_has_ended(logins: TokenCache) -> None:
    for token, user_id in (("a", 1), ("b", 2), ("c", 1)):
        logins.remember(token, caller(user_id), logins.version)
    logins.forget({1})
    assert [logins.find(token) is not None for token in "abc"] == [False, True, False]


def test_not_if_a_login_has_ended_while_the_database_was_asked(logins: TokenCache) -> None:
    version = logins.version
    logins.forget({1})
    logins.remember("t", caller(), version)
    assert logins.find("t") is None


def test_what_a_check_finds_is_forgotten(logins: TokenCache) -> None:
    logins.remember("a", caller(1), logins.version)
    logins.remember("b", caller(2), logins.version)
    logins.confirm([2])
    assert logins.find("a") is not None
    assert logins.find("b") is None


def test_nothing_is_known_where_nobody_checks(logins: TokenCache, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = TokenCache()
    fresh.remember("t", caller(), fresh.version)
    assert fresh.find("t") is None
    logins.remember("t", caller(), logins.version)
    later = time.monotonic() + module.LIFETIME_SECONDS
    monkeypatch.setattr(module.time, "monotonic", lambda: later)
    assert logins.find("t") is None
    logins.confirm([])  # what has ended in between may be too long ago to be found
    assert logins.find("t") is None


def test_there_is_a_bound(logins: TokenCache) -> None:
    for token in "abcd":
        logins.remember(token, caller(), logins.version)
    assert [logins.find(token) is not None for token in "abcd"] == [False, True, True, True]
