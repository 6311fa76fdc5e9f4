"""An API process's cache of verified access tokens."""

import time
from uuid import uuid4

import pytest

from api.auth import token_cache as module
from api.auth.principal import Principal
from api.auth.token_cache import TokenCache


def principal(user_id: int = 1, *, seconds: float = 60) -> Principal:
    return Principal(user_id, f"user-{user_id}", uuid4(), time.time() + seconds)


@pytest.fixture
def cache() -> TokenCache:
    made = TokenCache(max_tokens=3)
    made.confirm([])
    return made


def test_a_verified_token_is_cached(cache: TokenCache) -> None:
    alice = principal()
    cache.remember("t", alice, cache.version)
    assert cache.find("t") is alice
    assert cache.find("other") is None


def test_an_expired_token_is_not_returned(cache: TokenCache) -> None:
    cache.remember("t", principal(seconds=-1), cache.version)
    assert cache.find("t") is None


def test_a_token_is_forgotten_when_a_login_of_its_user_ends(cache: TokenCache) -> None:
    for token, user_id in (("a", 1), ("b", 2), ("c", 1)):
        cache.remember(token, principal(user_id), cache.version)
    cache.forget({1})
    assert [cache.find(token) is not None for token in "abc"] == [False, True, False]


def test_a_token_is_not_cached_if_a_login_ended_during_its_verification(cache: TokenCache) -> None:
    version = cache.version
    cache.forget({1})
    cache.remember("t", principal(), version)
    assert cache.find("t") is None


def test_the_tokens_of_ended_logins_that_a_check_finds_are_forgotten(cache: TokenCache) -> None:
    cache.remember("a", principal(1), cache.version)
    cache.remember("b", principal(2), cache.version)
    cache.confirm([2])
    assert cache.find("a") is not None
    assert cache.find("b") is None


def test_no_token_is_returned_without_a_recent_check(cache: TokenCache, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = TokenCache()
    fresh.remember("t", principal(), fresh.version)
    assert fresh.find("t") is None
    cache.remember("t", principal(), cache.version)
    later = time.monotonic() + module.LIFETIME_SECONDS
    monkeypatch.setattr(module.time, "monotonic", lambda: later)
    assert cache.find("t") is None
    cache.confirm([])  # logins that ended in between may be older than the check looks back
    assert cache.find("t") is None


def test_the_cache_drops_the_oldest_token_when_it_is_full(cache: TokenCache) -> None:
    for token in "abcd":
        cache.remember(token, principal(), cache.version)
    assert [cache.find(token) is not None for token in "abcd"] == [False, True, True, True]
