"""Prompts of API keys: whose they are, of which models, how many; and when a key was last used."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, select, update

from api.auth.key_uses import KeyUses
from api.auth.principal import KeyGrant
from api.intake.submission_limits import Caller
from api.services import Services
from shared.accounts import api_keys
from shared.db.engine import Sessions
from shared.db.models import ApiKey, Prompt
from tests.support.client import ApiUser, assert_problem
from tests.support.servers import wait_until
from worker.pipeline import Pipeline


def test_a_prompt_belongs_to_the_key_that_submitted_or_retried_it_last(alice: ApiUser, sessions: Sessions) -> None:
    one, other = alice.create_key(), alice.create_key()
    prompt_id = alice.with_key(one["key"]).submit()

    def key_id() -> int | None:
        with sessions() as session:
            return session.scalar(select(Prompt.key_id).where(Prompt.id == prompt_id))

    found = [key_id()]
    for user in (alice.with_key(other["key"]), alice):
        assert user.post(f"/prompts/{prompt_id}/cancel/").status_code == 200
        assert user.post(f"/prompts/{prompt_id}/retry/").status_code == 202
        found.append(key_id())
    assert found == [one["id"], other["id"], None]


def test_a_key_submits_and_retries_prompts_of_its_models_only(alice: ApiUser, sessions: Sessions) -> None:
    key = alice.create_key(models=["default"])
    limited = alice.with_key(key["key"])
    prompt_id = limited.submit()
    limited.post(f"/prompts/{prompt_id}/cancel/")
    with sessions.begin() as session:
        session.execute(update(Prompt).values(route="another"))
    response = limited.post(f"/prompts/{prompt_id}/retry/")
    assert "another" in assert_problem(response, 403)["detail"]
    assert response.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'
    with sessions.begin() as session:
        session.execute(update(ApiKey).values(models=["another"]))
    alice.delete(f"/auth/keys/{alice.create_key()['id']}/")  # drops the user's keys from the cache
    assert_problem(limited.post("/prompts/", json={"prompt_text": "Hi"}), 403)
    assert limited.show(prompt_id)["status"] == "cancelled"


def test_the_rate_limit_of_a_key_counts_in_addition_to_its_users(make_app) -> None:
    alice = ApiUser(make_app(prompt_rate_limit="5/minute")[0], "alice")
    limited = alice.with_key(rate_limit="2/minute;9/hour")

    def submit(user: ApiUser):
        return user.post("/prompts/", json={"prompt_text": "Hi"})

    assert [submit(limited).status_code for _ in range(5)] == [202, 202, 429, 429, 429]
    response = submit(limited)
    wait = response.headers["Retry-After"]
    assert response.headers["RateLimit"] == f'"API key: 2 per 1 minute";r=0;t={wait}'
    policies = '"API key: 2 per 1 minute";q=2;w=60, "API key: 9 per 1 hour";q=9;w=3600, "5 per 1 minute";q=5;w=60'
    assert response.headers["RateLimit-Policy"] == policies
    # What the key was refused does not count against the user.
    assert [submit(alice).status_code for _ in range(4)] == [202] * 3 + [429]
    assert submit(alice).headers["RateLimit"].startswith('"5 per 1 minute"')
    other = alice.with_key(rate_limit="2/minute")
    assert submit(other).headers["RateLimit"].startswith('"5 per 1 minute"')


def test_a_retry_counts_against_the_rate_limit_of_the_key(alice: ApiUser) -> None:
    limited = alice.with_key(rate_limit="1/hour")
    prompt_id = limited.submit()
    limited.post(f"/prompts/{prompt_id}/cancel/")
    assert_problem(limited.post(f"/prompts/{prompt_id}/retry/"), 429)


def test_the_rate_limits_of_keys_are_counted_without_redis_too(make_app, servers) -> None:
    away = servers.settings("any", redis_url="redis://127.0.0.1:9/0").redis_url
    alice = ApiUser(make_app(prompt_rate_limit="2/minute", redis_url=away)[0], "alice")
    limited = alice.with_key(rate_limit="1/minute")
    statuses = [user.post("/prompts/", json={"prompt_text": "Hi"}).status_code for user in (limited, limited, alice)]
    assert statuses == [202, 429, 202]
    assert_problem(alice.post("/prompts/", json={"prompt_text": "Hi"}), 429)


def test_a_group_of_submissions_with_and_without_limited_keys_is_counted_right(services: Services) -> None:
    def key(number: int, limit: str | None) -> KeyGrant:
        return KeyGrant(number, frozenset(), rate_limit=limit)

    one, two, unlimited = key(1, "1/minute"), key(2, "1/minute;1/hour"), key(3, None)
    callers = [Caller(1), Caller(1, one), Caller(2, two), Caller(2, unlimited), Caller(1, one), Caller(2, two)]
    verdicts = services.submissions._limits.count(callers)
    assert [verdict is None for verdict in verdicts] == [True, True, True, True, False, False]


def test_when_a_key_was_last_used_is_shown(alice: ApiUser) -> None:
    used = alice.with_key()
    alice.create_key()
    assert used.get("/prompts/").status_code == 200
    wait_until(lambda: alice.get("/auth/keys/").json[1]["last_used_at"] is not None)
    newest, used_key = alice.get("/auth/keys/").json
    assert newest["last_used_at"] is None
    assert used_key["last_used_at"] >= used_key["created_at"]


def test_the_last_use_is_written_at_most_once_a_minute(alice: ApiUser, sessions: Sessions) -> None:
    key_id = alice.create_key()["id"]

    def touch(seconds_ago: float) -> bool:
        before = datetime.now(UTC) - timedelta(seconds=seconds_ago)
        with sessions.begin() as session:
            session.execute(update(ApiKey).values(last_used_at=before))
            api_keys.touch(session, [key_id])
            return session.scalar(select(ApiKey.last_used_at)) != before

    assert [touch(55), touch(61)] == [False, True]


def test_a_process_writes_the_last_uses_of_all_keys_together_once_in_a_period(
    autocommit_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[set[int]] = []
    monkeypatch.setattr(api_keys, "touch", lambda _, key_ids: written.append(set(key_ids)))
    hourly = KeyUses(autocommit_engine, write_seconds=3_600)
    hourly.note(1)
    wait_until(lambda: written)
    for key_id in (2, 3, 1):
        hourly.note(key_id)
    assert written == [{1}]
    often = KeyUses(autocommit_engine, write_seconds=0)
    for key_id in (4, 5):
        often.note(key_id)
    wait_until(lambda: set().union(*written) == {1, 4, 5})


def test_a_request_does_not_wait_for_the_last_use_to_be_written(alice: ApiUser, sessions: Sessions) -> None:
    used = alice.with_key()
    with sessions.begin() as session:
        session.execute(select(ApiKey).with_for_update())
        assert [used.get("/prompts/").status_code for _ in range(3)] == [200] * 3


def test_a_search_and_the_answer_are_as_with_a_login(alice: ApiUser, worker: Pipeline) -> None:
    by_key = alice.with_key()
    prompt_id = by_key.submit("What is a tide?")
    worker.process(1)
    assert by_key.show(prompt_id) == alice.show(prompt_id)
    assert by_key.get("/prompts/similar/?prompt=tide").json == alice.get("/prompts/similar/?prompt=tide").json != []
