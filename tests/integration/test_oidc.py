"""Signing in with a real identity provider: the flow, accounts, linking, and what is refused."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from flask import Flask
from sqlalchemy import func, select, update
from werkzeug.test import Client, TestResponse

from api import client as api_client
from api.client.errors import NotLoggedInError
from api.services import Services
from infra.doctor import Finding, Observation
from infra.doctor.oidc import identity_provider
from shared.accounts import identities, sign_in_codes, users
from shared.accounts.sign_in_codes import ConfirmedIdentity, challenge_of
from shared.db.engine import Sessions
from shared.db.models import AuditEntry, LinkedIdentity, SignInCode, User
from shared.errors import IdentityTakenError
from shared.settings import Settings
from tests.support import oidc
from tests.support.client import PASSWORD, ApiUser, assert_problem, serving
from tests.support.command_line import CommandLine
from tests.support.oidc import CALLBACK, ProviderUser
from tests.support.servers import MAX_WAIT_SECONDS, wait_until

PUBLIC_URL = "http://127.0.0.1:8000"
VERIFIER = "the-secret-of-the-client-that-starts-the-sign-in"
MakeApp = Callable[..., tuple[Flask, Services]]


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with oidc.provider() as running:
        yield running


@pytest.fixture
def settings(settings: Settings, issuer: str) -> Settings:
    scopes = "openid profile email groups"
    changes = {"oidc_issuer": issuer, "oidc_client_id": "public", "oidc_scopes": scopes, "public_url": PUBLIC_URL}
    return settings.model_copy(update=changes)


class Browser:
    """A user's browser: what it keeps for the API, and for the provider."""

    def __init__(self, app: Flask, name: str = "carol") -> None:
        self.api: Client = app.test_client()
        self.at_provider = ProviderUser(name)

    def start(self, **query: str) -> TestResponse:
        return self.api.get("/auth/oidc/login/", query_string={"code_challenge": challenge_of(VERIFIER)} | query)

    def return_with(self, answer: dict[str, str]) -> TestResponse:
        return self.api.get(CALLBACK, query_string=answer)

    def get_code(self, **query: str) -> str:
        """Sign in at the provider. Returns the code for the client."""
        answer = self.at_provider.sign_in(self.start(**query).location)
        return result(self.return_with(answer))["sign-in"]

    def redeem(self, code: str, verifier: str = VERIFIER) -> TestResponse:
        return self.api.post("/auth/oidc/token/", json={"code": code, "code_verifier": verifier})

    def sign_in(self, **query: str) -> TestResponse:
        return self.redeem(self.get_code(**query))

    def signed_in(self) -> ApiUser:
        """Sign in, and return the user."""
        pair = self.sign_in().json
        user = ApiUser.__new__(ApiUser)
        user.username, user._client, user.tokens = pair["username"], self.api, pair
        return user


def result(response: TestResponse) -> dict[str, str]:
    """What the client finds behind the #."""
    assert response.status_code == 303, response.text
    target = urlsplit(response.location)
    assert f"{target.scheme}://{target.netloc}{target.path}?{target.query}" == f"{PUBLIC_URL}/?"
    return {name: values[0] for name, values in parse_qs(target.fragment).items()}


@pytest.fixture
def browser(app: Flask) -> Browser:
    return Browser(app)


class TestFlow:
    @pytest.mark.parametrize(
        ("client", "secret"), [("public", ""), ("ec", ""), ("with secret", "a secret: of %10+")], ids=str
    )
    def test_a_user_signs_in(self, make_app: MakeApp, settings: Settings, client: str, secret: str) -> None:
        hidden = type(settings.oidc_client_secret)(secret)
        browser = Browser(make_app(oidc_client_id=client, oidc_client_secret=hidden)[0])
        pair = browser.sign_in()
        assert pair.status_code == 200, pair.text
        assert pair.json["username"] == "carol"
        account = browser.api.get("/account/", headers={"Authorization": f"Bearer {pair.json['access']}"}).json
        assert (account["username"], account["has_password"], account["is_admin"]) == ("carol", False, False)

    def test_the_page_learns_the_providers_name(self, make_app: MakeApp) -> None:
        app, _ = make_app(oidc_name="Example Inc.")
        assert app.test_client().get("/auth/oidc/").json == {"name": "Example Inc."}

    def test_a_command_line_gets_the_code_at_its_port(self, browser: Browser) -> None:
        answer = browser.at_provider.sign_in(browser.start(port="50123").location)
        target = urlsplit(browser.return_with(answer).location)
        assert (target.scheme, target.netloc, target.path) == ("http", "127.0.0.1:50123", "/")
        query = parse_qs(target.query)
        assert query["state"] == [challenge_of(VERIFIER)]
        assert browser.redeem(query["code"][0]).status_code == 200

    def test_a_link_cannot_sign_a_command_line_in_without_the_password(self, browser: Browser) -> None:
        browser.sign_in()
        browser.sign_in()
        assert browser.at_provider.logins == 1
        browser.at_provider.sign_in(browser.start(port="50123").location)
        assert browser.at_provider.logins == 2

    def test_the_cookie_is_for_this_browser_and_host_alone(self, browser: Browser, make_app: MakeApp) -> None:
        cookie = browser.start().headers["Set-Cookie"]
        assert cookie.startswith("promptwire-sign-in=")
        assert {"HttpOnly", "SameSite=Lax", "Max-Age=600", "Path=/"} <= set(cookie.split("; "))
        app, _ = make_app(public_url="https://prompts.example.com")
        cookie = Browser(app).start().headers["Set-Cookie"]
        assert cookie.startswith("__Host-promptwire-sign-in=")
        assert {"Secure", "Path=/"} <= set(cookie.split("; "))
        assert "Domain" not in cookie

    def test_no_url_contains_a_token(self, browser: Browser) -> None:
        started = browser.start()
        finished = browser.return_with(browser.at_provider.sign_in(started.location))
        assert VERIFIER not in started.location + finished.location
        assert "eyJ" not in started.location + finished.location
        assert "eyJ" not in finished.headers.get("Set-Cookie", "")


class TestRefusedSignIns:
    def test_without_a_provider_there_is_nothing(self, make_app: MakeApp) -> None:
        app, _ = make_app(oidc_issuer="")
        browser = Browser(app)
        assert browser.api.get("/auth/oidc/").json == {"name": None}
        assert_problem(browser.start(), 404)
        assert_problem(browser.return_with({"code": "c", "state": "s"}), 404)
        assert_problem(browser.redeem("code"), 404)

    @pytest.mark.parametrize(
        "query", [{"code_challenge": "short"}, {"port": "0"}, {"return_to": "https://evil.example"}], ids=str
    )
    def test_a_client_that_asks_for_something_else_is_refused(self, browser: Browser, query: dict[str, str]) -> None:
        assert_problem(browser.start(**query), 400)

    def test_an_answer_for_another_browser_is_refused(self, app: Flask, browser: Browser) -> None:
        """Otherwise someone could sign others in to an account of his own."""
        browser.start()
        other = Browser(app, "mallory")
        answer = other.at_provider.sign_in(other.start().location)
        assert result(browser.return_with(answer)) == {"sign-in-error": "expired"}

    def test_an_answer_without_a_cookie_is_refused(self, app: Flask, browser: Browser) -> None:
        answer = browser.at_provider.sign_in(browser.start().location)
        assert result(Browser(app).return_with(answer)) == {"sign-in-error": "expired"}

    def test_a_forged_cookie_is_refused(self, browser: Browser) -> None:
        answer = browser.at_provider.sign_in(browser.start().location)
        cookie = browser.api.get_cookie("promptwire-sign-in")
        assert cookie is not None
        browser.api.set_cookie("promptwire-sign-in", f"A{cookie.value[1:]}")
        assert result(browser.return_with(answer)) == {"sign-in-error": "expired"}

    def test_an_answer_to_an_earlier_sign_in_does_not_end_a_later_one(self, browser: Browser) -> None:
        """As with two tabs."""
        earlier = browser.at_provider.sign_in(browser.start().location)
        later = browser.at_provider.sign_in(browser.start().location)
        assert result(browser.return_with(earlier)) == {"sign-in-error": "expired"}
        assert browser.redeem(result(browser.return_with(later))["sign-in"]).status_code == 200

    def test_an_answer_is_taken_once(self, browser: Browser) -> None:
        answer = browser.at_provider.sign_in(browser.start().location)
        assert "sign-in" in result(browser.return_with(answer))
        assert result(browser.return_with(answer)) == {"sign-in-error": "expired"}

    def test_the_providers_code_is_good_for_one_exchange(self, browser: Browser) -> None:
        answer = browser.at_provider.sign_in(browser.start().location)
        cookie = browser.api.get_cookie("promptwire-sign-in")
        assert cookie is not None
        browser.return_with(answer)
        browser.api.set_cookie("promptwire-sign-in", cookie.value)
        assert result(browser.return_with(answer)) == {"sign-in-error": "refused"}

    @pytest.mark.parametrize("iss", ["https://evil.example.com", None], ids=str)
    def test_an_answer_of_another_provider_is_refused(self, browser: Browser, iss: str | None) -> None:
        answer = browser.at_provider.sign_in(browser.start().location)
        answer = {name: value for name, value in (answer | {"iss": iss}).items() if value is not None}
        assert result(browser.return_with(answer)) == {"sign-in-error": "invalid-response"}

    def test_a_user_may_cancel_at_the_provider(self, browser: Browser) -> None:
        answer = browser.at_provider.cancel(browser.start().location)
        assert result(browser.return_with(answer)) == {"sign-in-error": "refused"}

    def test_while_the_provider_is_unavailable_passwords_work(self, make_app: MakeApp) -> None:
        app, _ = make_app(oidc_issuer="http://127.0.0.1:9")
        assert result(Browser(app).start()) == {"sign-in-error": "provider-unavailable"}
        assert ApiUser(app, "alice").get("/account/").status_code == 200

    def test_an_address_block_has_a_limit(self, browser: Browser, services: Services) -> None:
        limiter = services.sign_in_limiter
        key = (limiter._name, "127.0.0.0/24")
        limiter._in_redis.hit(limiter._limit, *key, cost=limiter._limit.amount)
        response = browser.start()
        assert_problem(response, 429)
        assert int(response.headers["Retry-After"]) > 0


class TestDoctor:
    def test_the_doctor_reports_a_provider_that_answers(self, settings: Settings) -> None:
        (found,) = identity_provider(settings)
        assert found == Observation("the identity provider answers; keys for signatures: 2")

    @pytest.mark.parametrize("path", ["", "/another"], ids=["unavailable", "another path"])
    def test_the_doctor_reports_what_is_wrong_with_an_issuer(self, settings: Settings, path: str) -> None:
        issuer = f"{settings.oidc_issuer}{path}" if path else "http://127.0.0.1:9"
        (found,) = identity_provider(settings.model_copy(update={"oidc_issuer": issuer}))
        assert isinstance(found, Finding)
        assert f"{issuer}/.well-known/openid-configuration" in found.problem

    def test_without_a_provider_there_is_nothing_to_check(self, settings: Settings) -> None:
        (found,) = identity_provider(settings.model_copy(update={"oidc_issuer": ""}))
        assert isinstance(found, Observation)


class TestCodes:
    def test_a_code_is_single_use(self, browser: Browser) -> None:
        code = browser.get_code()
        assert browser.redeem(code).status_code == 200
        assert_problem(browser.redeem(code), 400)

    def test_a_code_without_its_verifier_is_useless(self, browser: Browser) -> None:
        code = browser.get_code()
        assert_problem(browser.redeem(code, "x" * 43), 400)

    def test_a_code_expires(self, browser: Browser, sessions: Sessions) -> None:
        code = browser.get_code()
        with sessions.begin() as session:
            session.execute(update(SignInCode).values(expires_at=func.now()))
        assert_problem(browser.redeem(code), 400)
        with sessions.begin() as session:
            sign_in_codes.purge(session)
            assert session.scalar(select(func.count()).select_from(SignInCode)) == 0

    def test_the_code_itself_is_not_stored(self, browser: Browser, sessions: Sessions) -> None:
        code = browser.get_code()
        with sessions() as session:
            stored = session.scalars(select(SignInCode)).one()
        assert code.encode() not in stored.code_hash
        assert VERIFIER not in stored.challenge


class TestAccounts:
    def test_the_same_identity_is_the_same_user(self, app: Flask) -> None:
        first, again = Browser(app).signed_in(), Browser(app).signed_in()
        assert first.get("/account/").json["id"] == again.get("/account/").json["id"]

    def test_an_account_of_the_same_name_is_not_taken_over(self, app: Flask, sessions: Sessions) -> None:
        alice = ApiUser(app, "Alice")
        problem = assert_problem(Browser(app, "alice@evil.example").sign_in(), 409)
        assert "log in to it with its password" in problem["detail"]
        assert alice.get("/account/identities/").json == []
        with sessions() as session:
            assert session.scalars(select(User.username)).all() == ["Alice"]

    def test_two_first_sign_ins_at_once_do_not_leave_an_account_without_an_identity(self, sessions: Sessions) -> None:
        """The provider has another name for the user meanwhile, so the names do not collide."""
        first = ConfirmedIdentity("https://id.example.com", "7", "alice", is_admin=None, reauthenticated=False)
        with sessions.begin() as session:
            identities.create_user(session, first)
        with pytest.raises(IdentityTakenError), sessions.begin() as session:
            identities.create_user(session, first._replace(username="alice2"))
        with sessions() as session:
            assert session.scalars(select(User.username)).all() == ["alice"]

    @pytest.mark.parametrize(("creates", "status"), [(True, 200), (False, 403)])
    def test_the_first_sign_in_creates_an_account_if_it_may(
        self, make_app: MakeApp, creates: bool, status: int
    ) -> None:
        assert Browser(make_app(oidc_create_accounts=creates)[0]).sign_in().status_code == status

    @pytest.mark.parametrize(("domain", "refusal"), [("example.com", None), ("example.org", "not-permitted")])
    def test_only_permitted_users_sign_in(self, make_app: MakeApp, domain: str, refusal: str | None) -> None:
        browser = Browser(make_app(oidc_allowed_domains=(domain,))[0])
        answer = browser.at_provider.sign_in(browser.start().location)
        assert result(browser.return_with(answer)).get("sign-in-error") == refusal

    def test_the_group_of_admins_decides_who_is_one(self, make_app: MakeApp, sessions: Sessions) -> None:
        app, _ = make_app(oidc_admin_group="admins")
        boss = Browser(app, "boss").signed_in()
        assert boss.get("/admin/users/").status_code == 200
        dora = Browser(app, "dora").signed_in()
        assert_problem(dora.get("/admin/users/"), 403)
        with sessions.begin() as session:
            users.set_roles(users.find_existing(session, "dora"), is_admin=True)
        Browser(app, "dora").signed_in()
        assert_problem(dora.get("/admin/users/"), 403)
        with sessions() as session:
            entries = session.execute(select(AuditEntry.action, AuditEntry.details).order_by(AuditEntry.id)).all()
        by = {"by": "identity provider"}
        assert [(action, details) for action, details in entries if details] == [
            ("user.created", by),
            ("admin.granted", by),
            ("user.created", by),
            ("admin.removed", by),
        ]

    def test_a_user_without_a_password_cannot_log_in_with_any(
        self, app: Flask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Nor with that of the hash that is verified instead, so that the response takes as long.
        monkeypatch.setattr(users, "NO_USER_HASH", users.hash_password(PASSWORD))
        Browser(app).signed_in()
        for password in ("!", PASSWORD):
            body = {"username": "carol", "password": password}
            assert_problem(app.test_client().post("/login/", json=body), 401)

    def test_a_user_without_a_password_can_create_keys(self, browser: Browser) -> None:
        assert browser.signed_in().create_key()["key"].startswith("pw_")

    def test_calls_that_need_a_password_say_that_the_user_has_none(self, browser: Browser) -> None:
        body = {"current_password": "any", "password": PASSWORD}
        problem = assert_problem(browser.signed_in().post("/account/password/", json=body), 400)
        assert "has no password" in problem["errors"][0]["message"]

    def test_an_admin_sees_how_users_sign_in(self, make_app: MakeApp) -> None:
        app, _ = make_app(oidc_admin_group="admins")
        boss = Browser(app, "boss").signed_in()
        ApiUser(app, "alice")
        listed = boss.get("/admin/users/").json
        ways = {user["username"]: (user["has_password"], user["has_identity"]) for user in listed}
        assert ways == {"alice": (True, False), "boss": (False, True)}


class TestDeletion:
    def delete(self, user: ApiUser, code: str, verifier: str = VERIFIER) -> TestResponse:
        return user.call("DELETE", "/account/", json={"code": code, "code_verifier": verifier})

    def test_a_user_without_a_password_authenticates_again(self, browser: Browser, sessions: Sessions) -> None:
        carol = browser.signed_in()
        logins = browser.at_provider.logins
        assert self.delete(carol, browser.get_code(reauthenticate="true")).status_code == 204
        assert browser.at_provider.logins == logins + 1
        assert_problem(carol.get("/account/"), 401)
        with sessions() as session:
            assert session.scalar(select(func.count()).select_from(LinkedIdentity)) == 0

    def test_after_a_deletion_the_identity_gets_a_new_account(self, app: Flask, browser: Browser) -> None:
        carol = browser.signed_in()
        first = carol.get("/account/").json["id"]
        self.delete(carol, browser.get_code(reauthenticate="true"))
        assert Browser(app).signed_in().get("/account/").json["id"] != first

    def test_a_sign_in_without_authentication_is_not_enough(self, browser: Browser) -> None:
        carol = browser.signed_in()
        assert_problem(self.delete(carol, browser.get_code()), 400)
        assert carol.get("/account/").status_code == 200

    def test_the_sign_in_of_another_user_is_not_enough(self, app: Flask, browser: Browser) -> None:
        carol = browser.signed_in()
        assert_problem(self.delete(carol, Browser(app, "mallory").get_code(reauthenticate="true")), 400)
        assert carol.get("/account/").status_code == 200

    @pytest.mark.parametrize("body", [{}, {"code": "c"}, {"code_verifier": VERIFIER}, {"password": None}], ids=str)
    def test_without_any_proof_nothing_is_deleted(self, browser: Browser, body: dict[str, object]) -> None:
        assert_problem(browser.signed_in().call("DELETE", "/account/", json=body), 400)


class TestLinking:
    def link(self, user: ApiUser, code: str, password: str = PASSWORD) -> TestResponse:
        body = {"code": code, "code_verifier": VERIFIER, "password": password}
        return user.post("/account/identities/", json=body)

    def test_a_linked_identity_signs_in_to_the_account(self, app: Flask, alice: ApiUser, sessions: Sessions) -> None:
        linked = self.link(alice, Browser(app).get_code())
        assert linked.status_code == 201, linked.text
        assert alice.get("/account/identities/").json == [linked.json]
        assert linked.json["subject"] == "carol"
        assert Browser(app).sign_in().json["username"] == "alice"
        with sessions() as session:
            entry = session.scalars(select(AuditEntry).where(AuditEntry.action == "identity.linked")).one()
        assert entry.details == {"identity_id": linked.json["id"]}

    def test_the_code_of_a_refused_sign_in_can_be_linked(self, app: Flask, alice: ApiUser) -> None:
        browser = Browser(app, "alice")
        code = browser.get_code()
        assert_problem(browser.redeem(code), 409)
        assert self.link(alice, code).status_code == 201
        assert browser.sign_in().json["username"] == "alice"

    def test_a_wrong_password_links_nothing(self, app: Flask, alice: ApiUser) -> None:
        assert_problem(self.link(alice, Browser(app).get_code(), "wrong password"), 400)
        assert alice.get("/account/identities/").json == []

    def test_an_identity_of_another_account_cannot_be_linked(self, app: Flask, alice: ApiUser) -> None:
        Browser(app).signed_in()
        assert_problem(self.link(alice, Browser(app).get_code()), 409)

    def test_an_account_has_one_identity_of_a_provider(self, app: Flask, alice: ApiUser) -> None:
        self.link(alice, Browser(app).get_code())
        assert_problem(self.link(alice, Browser(app, "dora").get_code()), 409)

    def test_an_unlinked_identity_does_not_sign_in_any_more(self, app: Flask, alice: ApiUser, bob: ApiUser) -> None:
        path = f"/account/identities/{self.link(alice, Browser(app).get_code()).json['id']}/"
        assert_problem(bob.delete(path), 404)
        assert alice.delete(path).status_code == 204
        assert_problem(alice.delete(path), 404)
        assert Browser(app).sign_in().json["username"] == "carol"

    def test_the_only_way_to_log_in_cannot_be_unlinked(self, browser: Browser) -> None:
        carol = browser.signed_in()
        identity = carol.get("/account/identities/").json[0]
        assert_problem(carol.delete(f"/account/identities/{identity['id']}/"), 409)
        assert carol.get("/account/identities/").json == [identity]


def browse(url: str, start: str) -> None:
    """Sign in as carol with a browser on this machine, from the address that a command line has shown."""
    kept = httpx.Client(timeout=MAX_WAIT_SECONDS, limits=httpx.Limits(max_keepalive_connections=0))
    answer = ProviderUser("carol").sign_in(kept.get(start).headers["Location"])
    back = kept.get(f"{url}{CALLBACK}", params=answer, follow_redirects=True)
    assert back.text == "You are back in the terminal. You can close this window."


class TestCommandLine:
    """`promptwire login --browser`, whose browser is a thread."""

    @pytest.fixture
    def url(self, app: Flask) -> Iterator[str]:
        with serving(app) as url:
            yield url

    def test_a_browser_on_this_machine_logs_the_client_in(self, url: str) -> None:
        with api_client.Client(url) as client:
            assert client.login_with_browser(partial(browse, url), seconds=MAX_WAIT_SECONDS) == "carol"
            assert client.account.show()["username"] == "carol"

    def test_a_failed_sign_in_is_an_error(self, url: str) -> None:
        def browse(start: str) -> None:
            query = parse_qs(urlsplit(start).query)
            (port,), (challenge,) = query["port"], query["code_challenge"]
            httpx.get(f"http://127.0.0.1:{port}/?error=not-permitted&state={challenge}")

        with api_client.Client(url) as client, pytest.raises(NotLoggedInError, match="may not be used here"):
            client.login_with_browser(browse, seconds=MAX_WAIT_SECONDS)

    def test_the_command_ignores_what_other_pages_send_to_its_port(self, url: str, tmp_path: Path) -> None:
        shell = CommandLine(url, tmp_path)
        shell.environment |= {"BROWSER": "echo"}  # a program that opens nothing, but prints
        with shell.start("login", "--browser") as running:
            wait_until(lambda: len(running.notes) == 3, what="the address for the browser")
            start = running.notes[1].strip()
            port = parse_qs(urlsplit(start).query)["port"][0]
            for query in ("code=evil", "code=evil&state=evil", "error=refused", "state="):
                assert httpx.get(f"http://127.0.0.1:{port}/?{query}").status_code == 404
            browse(url, start)
            assert running.wait() == 0
        assert running.lines == [f"Logged in to {url} as carol.\n"]
        assert shell.json("account", "show")[0]["username"] == "carol"

    def test_a_browser_that_does_not_come_back_is_given_up(self, url: str) -> None:
        with api_client.Client(url) as client, pytest.raises(NotLoggedInError, match="has not finished"):
            client.login_with_browser(lambda _: None, seconds=0)

    def test_a_server_without_a_provider_is_an_error(self, make_app: MakeApp) -> None:
        with (
            serving(make_app(oidc_issuer="")[0]) as url,
            api_client.Client(url) as client,
            pytest.raises(NotLoggedInError, match="log in with a password"),
        ):
            client.login_with_browser(lambda _: None)
