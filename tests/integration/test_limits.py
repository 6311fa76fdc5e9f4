"""Rate limits of submissions: 1 per second and 10 per minute per user by default."""

import pytest
from redis import Redis

from shared.settings import Settings
from tests.support.client import ApiUser, assert_problem


@pytest.fixture
def limited(make_app) -> ApiUser:
    return ApiUser(make_app(prompt_rate_limit="3/minute;5/hour")[0], "alice")


def submit(user: ApiUser, **kwargs):
    return user.post("/prompts/", json={"prompt_text": "Hi"}, **kwargs)


def test_a_submission_over_the_limit_is_429_and_says_when_to_retry(limited: ApiUser) -> None:
    assert [submit(limited).status_code for _ in range(3)] == [202] * 3
    response = submit(limited)
    assert_problem(response, 429)
    wait = response.headers["Retry-After"]
    assert 1 <= int(wait) <= 60
    assert response.headers["RateLimit"] == f'"3 per 1 minute";r=0;t={wait}'
    assert response.headers["RateLimit-Policy"] == '"3 per 1 minute";q=3;w=60, "5 per 1 hour";q=5;w=3600'
    assert len(limited.get("/prompts/").json) == 3


def test_each_user_has_their_own_limit(make_app) -> None:
    app, _ = make_app(prompt_rate_limit="1/minute")
    alice, bob = ApiUser(app, "alice"), ApiUser(app, "bob")
    assert [submit(user).status_code for user in (alice, alice, bob)] == [202, 429, 202]


def test_all_processes_share_one_count(make_app) -> None:
    first, second = (make_app(prompt_rate_limit="1/minute")[0] for _ in range(2))
    alice = ApiUser(first, "alice")
    submit(alice)
    alice._client = second.test_client()
    assert submit(alice).status_code == 429


def test_a_rejected_submission_does_not_count_against_longer_windows(make_app) -> None:
    alice = ApiUser(make_app(prompt_rate_limit="1/second;3/minute")[0], "alice")
    statuses = [submit(alice).status_code for _ in range(6)]
    assert statuses.count(429) >= 3
    response = submit(alice)
    if response.status_code == 429:
        assert response.headers["RateLimit"].startswith('"1 per 1 second"')


def test_a_replayed_submission_does_not_count(limited: ApiUser) -> None:
    key = {"Idempotency-Key": "K"}
    assert [submit(limited, headers=key).status_code for _ in range(10)] == [202] * 10
    assert [submit(limited).status_code for _ in range(3)] == [202, 202, 429]
    assert submit(limited, headers=key).status_code == 202


@pytest.mark.parametrize("forged", ["many", "1.5", "-1000", "9223372036854775807", ["a", "list"]])
def test_a_key_that_is_not_a_counter_is_replaced(limited: ApiUser, settings: Settings, forged: object) -> None:
    submit(limited)
    with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
        for key in redis.keys("promptwire:limit:*"):
            redis.delete(key)
            redis.rpush(key, *forged) if isinstance(forged, list) else redis.set(key, forged)
        assert [submit(limited).status_code for _ in range(4)] == [202] * 3 + [429]
        assert all(0 < redis.ttl(key) <= 3600 for key in redis.keys("promptwire:limit:*"))


def test_a_user_whose_counter_does_not_expire_is_not_refused_for_ever(limited: ApiUser, settings: Settings) -> None:
    for _ in range(4):
        submit(limited)
    with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
        for key in redis.keys("promptwire:limit:*"):
            redis.persist(key)
        assert submit(limited).status_code == 429
        assert 0 < redis.ttl(f"promptwire:limit:0:3:60:{limited.id}") <= 60


def test_invalid_requests_do_not_count(limited: ApiUser) -> None:
    for _ in range(5):
        limited.post("/prompts/", json={"prompt_text": ""})
    assert submit(limited).status_code == 202


def test_each_process_counts_for_itself_while_redis_is_unavailable(make_app, servers) -> None:
    app, _ = make_app(prompt_rate_limit="2/minute")
    without_redis, _ = make_app(prompt_rate_limit="2/minute", redis_url=_unreachable_redis(servers))
    alice = ApiUser(app, "alice")
    alice._client = without_redis.test_client()
    assert [submit(alice).status_code for _ in range(3)] == [202, 202, 429]


def _unreachable_redis(servers):
    return servers.settings("any", redis_url="redis://127.0.0.1:9/0").redis_url
