"""Limits of failed logins and of registrations, through HTTP, from several addresses."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from flask import Flask
from redis import Redis
from sqlalchemy import text

from api.app import create_app
from api.auth.failed_logins import FailedLogins
from api.http.rate_limits import RateLimitedError
from shared.accounts import login_blocks, users
from shared.db.engine import Sessions
from shared.errors import InvalidCredentialsError
from shared.settings import Settings
from tests.support.client import PASSWORD, assert_problem
from tests.support.threads import at_once

CREDENTIALS = {"username": "carol", "password": PASSWORD}
WRONG = CREDENTIALS | {"password": "wrong password"}
HOME, NEIGHBOUR, STRANGER, CAFE = "192.0.2.1", "192.0.2.200", "198.51.100.1", "203.0.113.1"


class Site:
    """An application behind one trusted proxy, which carol has registered at."""

    def __init__(self, app: Flask) -> None:
        self.app = app

    def log_in(self, address: str, body: dict = CREDENTIALS):
        return self.app.test_client().post("/login/", json=body, headers={"X-Forwarded-For": address})

    def fail(self, address: str, times: int = 10) -> list[int]:
        return [self.log_in(address, WRONG).status_code for _ in range(times)]


@pytest.fixture
def make_site(make_app, settings: Settings) -> Callable[..., Site]:
    def make(**options: object) -> Site:
        _, services = make_app(trusted_proxies=1)
        failed_logins = FailedLogins(settings.redis_url.get_secret_value(), **({"throttled_seconds": 1} | options))
        return Site(create_app(services.settings, replace(services, failed_logins=failed_logins)))

    return make


@pytest.fixture
def site(make_site) -> Site:
    made = make_site()
    made.app.test_client().post("/auth/register/", json=CREDENTIALS)
    return made


class TestFailures:
    def test_redis_has_no_names(self, site: Site, settings: Settings) -> None:
        """They would be there after the user was deleted; and people type passwords as names."""
        site.log_in(HOME)
        site.fail(HOME)
        site.log_in(HOME)
        with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
            names = [name.decode() for name in redis.scan_iter()]
        assert len([name for name in names if "login-" in name]) == 4
        assert not any(CREDENTIALS["username"] in name for name in names)

    def test_a_username_is_limited_to_ten_failed_logins_a_minute_from_a_block(self, site: Site) -> None:
        assert site.fail(HOME, 11) == [401] * 10 + [429]
        response = site.log_in(HOME, WRONG)
        assert_problem(response, 429)
        assert 1 <= int(response.headers["Retry-After"]) <= 60
        assert response.headers["RateLimit"].endswith(f"r=0;t={response.headers['Retry-After']}")
        assert site.log_in(HOME, WRONG | {"username": "dave"}).status_code == 401

    def test_successful_logins_do_not_count(self, site: Site) -> None:
        assert {site.log_in(HOME).status_code for _ in range(15)} == {200}

    def test_concurrent_successful_logins_do_not_count(self, site: Site) -> None:
        assert at_once(15, lambda: site.log_in(HOME).status_code) == [200] * 15

    def test_concurrent_failed_logins_do_not_exceed_the_limit(self, site: Site) -> None:
        assert sorted(at_once(15, lambda: site.log_in(HOME, WRONG).status_code)) == [401] * 10 + [429] * 5

    @pytest.mark.parametrize(
        ("block", "options", "limit"),
        [("[2001:db8::{i}]:{port}", {}, 100), ("192.0.2.{i}:{port}", {"per_block": "12/minute"}, 12)],
    )
    def test_a_block_is_limited_to_a_hundred_failed_logins_a_minute_whatever_its_addresses_and_ports(
        self, make_site, block: str, options: dict, limit: int
    ) -> None:
        site = make_site(**options)

        def attempt(i: int) -> int:
            address = block.format(i=i, port=50_000 + i)
            return site.log_in(address, {"username": f"user{i}", "password": "a"}).status_code

        assert {attempt(i) for i in range(limit)} == {401}
        assert attempt(limit) == 429
        assert site.log_in(CAFE, WRONG).status_code == 401

    def test_a_counter_of_another_type_in_redis_does_not_prevent_logins(self, site: Site, settings: Settings) -> None:
        site.log_in(STRANGER, WRONG)
        with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
            for key in redis.keys("LIMITS*"):
                redis.delete(key)
                redis.rpush(key, "forged")
        assert site.log_in(STRANGER).status_code == 200
        assert site.fail(STRANGER, 11) == [401] * 10 + [429]
        assert site.fail(CAFE, 11) == [401] * 10 + [429]


class TestOwner:
    def test_failures_from_another_block_do_not_lock_the_owner_out(self, site: Site) -> None:
        assert site.fail(STRANGER, 11)[-1] == 429
        assert site.log_in(CAFE).status_code == 200

    def test_the_right_password_over_the_limit_is_not_revealed_to_an_unknown_block(self, site: Site) -> None:
        site.fail(STRANGER)
        right, wrong = site.log_in(STRANGER), site.log_in(STRANGER, WRONG)
        assert (right.status_code, right.json) == (wrong.status_code, wrong.json)
        assert right.status_code == 429

    def test_over_a_limit_the_right_password_is_accepted_where_its_user_has_logged_in(self, site: Site) -> None:
        site.log_in(HOME)
        assert site.fail(NEIGHBOUR, 12) == [401] * 10 + [429] * 2
        assert site.log_in(HOME).status_code == 200

    def test_a_known_block_is_known_to_another_process_after_a_restart(self, site: Site, make_site) -> None:
        site.log_in(HOME)
        site.fail(HOME)
        assert make_site().log_in(HOME).status_code == 200

    def test_a_wrong_password_over_a_limit_gets_the_same_response_from_a_known_and_an_unknown_block(
        self, site: Site
    ) -> None:
        site.log_in(HOME)
        responses = []
        for address in (HOME, STRANGER):
            site.fail(address)
            response = site.log_in(address, WRONG)
            headers = {name for name, _ in response.headers}
            responses.append((response.status_code, response.json.keys(), headers, response.json["title"]))
        assert responses[0] == responses[1]

    def test_guesses_from_many_blocks_are_limited_without_locking_the_owner_out_at_home(self, make_site, site) -> None:
        site = make_site(per_user="15/hour")
        site.log_in(HOME)
        assert site.fail(STRANGER, 10) + site.fail(CAFE, 6) == [401] * 15 + [429]
        assert site.log_in("198.18.0.1").status_code == 429
        assert site.log_in(HOME).status_code == 200

    def test_one_block_does_not_use_up_the_limit_of_all_blocks(self, make_site, site) -> None:
        site = make_site(per_user="11/hour")
        site.fail(STRANGER, 20)
        assert site.log_in(CAFE).status_code == 200


class TestThrottle:
    """Over a limit, a user's passwords are verified one after the other from each known block."""

    def test_a_guess_too_soon_after_another_is_refused_without_being_verified(self, settings: Settings) -> None:
        limits = FailedLogins(settings.redis_url.get_secret_value(), throttled_seconds=3600, max_wait_seconds=0)
        verified = []

        def guess(username: str = "carol", block: str = HOME, *, known: bool = True) -> None:
            with limits.attempt(username, block, lambda: known):
                verified.append((username, block))
                raise InvalidCredentialsError

        for _ in range(10):
            with pytest.raises(InvalidCredentialsError):
                guess()
        for _ in range(3):
            with pytest.raises(RateLimitedError):
                guess()
        assert len(verified) == 11
        with pytest.raises(RateLimitedError):
            guess(known=False)
        assert len(verified) == 11
        with pytest.raises(InvalidCredentialsError):
            guess(block=CAFE)


class TestBlocks:
    def test_a_user_keeps_the_blocks_used_last(self, sessions: Sessions) -> None:
        with sessions.begin() as session:
            user_id = users.create(session, "carol", "hash").id
        count = login_blocks.MAX_BLOCKS_PER_USER + 8
        for i in range(count):
            with sessions.begin() as session:
                login_blocks.remember(session, user_id, f"10.0.{i}.0/24")
        with sessions() as session:
            known = [i for i in range(count) if login_blocks.is_known(session, "carol", f"10.0.{i}.0/24")]
        assert known == list(range(8, count))

    def test_a_block_is_forgotten_when_it_was_not_used_for_long(self, sessions: Sessions) -> None:
        with sessions.begin() as session:
            user_id = users.create(session, "carol", "hash").id
            for block in ("10.0.0.0/24", "10.0.1.0/24"):
                login_blocks.remember(session, user_id, block)
            session.execute(
                text("UPDATE login_blocks SET last_login_at = now() - interval '181 days' WHERE address_block = :old"),
                {"old": "10.0.0.0/24"},
            )
            login_blocks.purge(session)
            known = [login_blocks.is_known(session, "carol", block) for block in ("10.0.0.0/24", "10.0.1.0/24")]
        assert known == [False, True]


class TestAddresses:
    """A client chooses what it sends in X-Forwarded-For; only the part that a trusted proxy has added counts."""

    def statuses(self, app: Flask, *forwarded: str) -> list[int]:
        def attempt(i: int) -> int:
            headers = [("X-Forwarded-For", value.format(i=i)) for value in forwarded]
            return app.test_client().post("/login/", json=WRONG, headers=headers).status_code

        return [attempt(i) for i in range(11)]

    @pytest.mark.parametrize(
        ("proxies", "forwarded"),
        [
            (0, ["10.{i}.0.1"]),
            (1, ["10.{i}.0.1, 192.0.2.1"]),
            (1, ["10.{i}.0.1", "192.0.2.1"]),
            (2, ["10.{i}.0.1, 192.0.2.1, 10.{i}.9.9"]),
            (2, ["10.{i}.0.1"]),  # it came by fewer proxies than there are
        ],
    )
    def test_a_client_cannot_change_the_address_it_is_counted_by(
        self, make_app, proxies: int, forwarded: list[str]
    ) -> None:
        app, _ = make_app(trusted_proxies=proxies)
        assert self.statuses(app, *forwarded) == [401] * 10 + [429]

    @pytest.mark.parametrize(("proxies", "forwarded"), [(1, "192.0.2.1, 10.{i}.0.1"), (2, "10.{i}.0.1, 192.0.2.1")])
    def test_the_address_that_the_outermost_trusted_proxy_saw_counts(
        self, make_app, proxies: int, forwarded: str
    ) -> None:
        app, _ = make_app(trusted_proxies=proxies)
        assert self.statuses(app, forwarded) == [401] * 11


class TestRegistrations:
    def test_registrations_are_limited_by_block_and_in_production_only(self, make_app) -> None:
        production, _ = make_app(app_env="prod", registration=True, trusted_proxies=1)
        development, _ = make_app(trusted_proxies=1)

        def register(app: Flask, i: int, address: str) -> int:
            body = CREDENTIALS | {"username": f"u{i}"}
            return (
                app.test_client().post("/auth/register/", json=body, headers={"X-Forwarded-For": address}).status_code
            )

        assert [register(production, i, f"192.0.2.{i}:{i}") for i in range(11)] == [201] * 10 + [429]
        assert register(production, 11, CAFE) == 201
        assert {register(development, i, HOME) for i in range(12, 24)} == {201}
