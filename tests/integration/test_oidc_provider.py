"""The identity provider: what is kept of it, and what happens when it misbehaves."""

import contextlib
import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from api.auth.oidc.cached_fetch import CachedFetch
from api.auth.oidc.errors import InvalidIdTokenError, ProviderUnavailableError, RefusedByProviderError, SignInError
from api.auth.oidc.http import MAX_BYTES, fetch_json
from api.auth.oidc.provider import Exchange, IdentityProvider
from shared.settings import Settings
from tests.support.id_tokens import KEYS, NONCE, claims, public_jwk, sign
from tests.support.raw_server import RawServer, response
from tests.support.servers import MAX_WAIT_SECONDS

OTHER_KEY = public_jwk(rsa.generate_private_key(65_537, 2048), kid="1")
CODE = Exchange("the code", "the verifier", NONCE)
USER = ("preferred_username",)
#: The time limit of the tests that wait for it. The others must be faster, however busy the machine is.
SHORT_SECONDS = 0.3


def reply(body: object, status: str = "200 OK", headers: str = "") -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return response(text, "application/json", status, headers, length=True)


class Provider:
    """A scripted identity provider, and a client of it."""

    max_seconds = MAX_WAIT_SECONDS

    def __init__(self, server: RawServer, **changes: Any) -> None:
        self.server = server
        self.issuer = f"http://127.0.0.1:{server.port}"
        self._settings = Settings(
            _env_file=None,
            database_url="postgresql://u:p@h/d",
            redis_url="redis://h/0",
            jwt_secret_key="k" * 32,
            oidc_issuer=self.issuer,
            oidc_client_id="promptwire",
            public_url="http://127.0.0.1:8000",
            **changes,
        )
        self.client = self.make_client(retry_seconds=0)

    def make_client(self, *, retry_seconds: float) -> IdentityProvider:
        return IdentityProvider(self._settings, max_seconds=self.max_seconds, retry_seconds=retry_seconds)

    def configuration(self, **changes: Any) -> dict[str, Any]:
        endpoints = ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint")
        return {"issuer": self.issuer, **{name: f"{self.issuer}/{name}" for name in endpoints}} | changes

    def publish(self, **changes: Any) -> None:
        self.server.script(reply(self.configuration(**changes)))

    def issue(self, **changes: Any) -> None:
        """Answer the exchange of a code."""
        token = sign(claims(iss=self.issuer, **changes))
        self.server.script(reply({"id_token": token, "access_token": "an access token", "token_type": "Bearer"}))

    def publish_keys(self, keys: list[dict[str, Any]] = KEYS) -> None:
        self.server.script(reply({"keys": keys}))

    def redeem(self, needed: tuple[str, ...] = ()) -> Any:
        return self.client.redeem(CODE, needed=needed)


@contextmanager
def trickling() -> Iterator[str]:
    """A server that sends a byte of its headers every 20 ms, without an end."""
    is_over = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            with client:
                client.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not is_over.wait(0.02):
                    client.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        is_over.set()


@pytest.fixture
def provider(raw_server: RawServer) -> Provider:
    return Provider(raw_server)


class TestConfiguration:
    def test_the_address_for_the_browser_has_state_nonce_and_challenge(self, provider: Provider) -> None:
        provider.publish()
        url = provider.client.authorization_url(state="S", nonce="N", challenge="C", reauthenticate=True)
        assert url.startswith(f"{provider.issuer}/authorization_endpoint?response_type=code&client_id=promptwire&")
        assert "redirect_uri=http%3A%2F%2F127.0.0.1%3A8000%2Fauth%2Foidc%2Fcallback%2F" in url
        for part in (
            "state=S",
            "nonce=N",
            "code_challenge=C&code_challenge_method=S256",
            "prompt=login",
            "scope=openid+",
        ):
            assert f"&{part}" in url

    def test_the_configuration_is_fetched_once(self, provider: Provider) -> None:
        provider.client = provider.make_client(retry_seconds=3_600)
        provider.publish()
        assert provider.client.configuration == provider.client.configuration
        assert len(provider.server.requests) == 1

    @pytest.mark.parametrize(
        ("body", "status", "says"),
        [
            ({"issuer": "https://another.example.com"}, "200 OK", "OIDC_ISSUER must be exactly that"),
            ({"issuer": None}, "200 OK", "OIDC_ISSUER must be exactly that"),
            ({"token_endpoint": None}, "200 OK", "no token_endpoint"),
            ({"token_endpoint": "ftp://h/token"}, "200 OK", "no token_endpoint"),
            ({"jwks_uri": "https:///keys"}, "200 OK", "no jwks_uri"),
            ({"jwks_uri": "https://[keys"}, "200 OK", "no jwks_uri"),
            ({"jwks_uri": "https://xn--/keys"}, "200 OK", "no jwks_uri"),
            ({"jwks_uri": ["https://h/keys"]}, "200 OK", "no jwks_uri"),
            ({"authorization_endpoint": "https://h/\r\nSet-Cookie: a=b"}, "200 OK", "no authorization_endpoint"),
            ({}, "404 Not Found", "answers 404"),
            ({}, "302 Found", "answers 302"),
            (b"<html>", "200 OK", "without JSON"),
            (b"[]", "200 OK", "does not answer with a JSON object"),
            (b" " * (MAX_BYTES + 1) + b"{}", "200 OK", "more than"),
        ],
    )
    def test_an_invalid_configuration_is_an_error(
        self, provider: Provider, body: object, status: str, says: str
    ) -> None:
        content = provider.configuration(**body) if isinstance(body, dict) else body
        provider.server.script(reply(content, status))
        with pytest.raises(ProviderUnavailableError, match=says):
            _ = provider.client.configuration

    def test_a_compressed_configuration_is_not_expanded(self, provider: Provider) -> None:
        """A small response could fill the memory."""
        body = gzip.compress(json.dumps(provider.configuration()).encode())
        provider.server.script(reply(body, headers="Content-Encoding: gzip\r\n"))
        with pytest.raises(ProviderUnavailableError, match="without JSON"):
            _ = provider.client.configuration
        assert "Accept-Encoding: identity" in provider.server.requests[0].decode()

    def test_endpoints_without_tls_are_refused_for_an_issuer_with_tls(self, provider: Provider) -> None:
        provider.client.issuer = "https://login.example.com"
        with pytest.raises(ProviderUnavailableError, match="begins with https"):
            provider.client._endpoint(provider.configuration(), "token_endpoint")

    def test_a_redirect_is_not_followed(self, provider: Provider) -> None:
        provider.server.script(reply({}, "302 Found", f"Location: {provider.issuer}/elsewhere\r\n"))
        with pytest.raises(ProviderUnavailableError):
            _ = provider.client.configuration
        assert len(provider.server.requests) == 1


class TestSlowProvider:
    @pytest.mark.parametrize(
        "pieces", [(), (b"HTTP/1.1 200 OK\r\n",), (reply({"a": 1})[:-3],)], ids=["nothing", "head", "body"]
    )
    def test_a_request_to_a_silent_provider_times_out(self, raw_server: RawServer, pieces: tuple[bytes, ...]) -> None:
        raw_server.script(*pieces, then="silence")
        with pytest.raises(ProviderUnavailableError, match="does not answer"):
            fetch_json("GET", raw_server.url, max_seconds=SHORT_SECONDS)

    def test_a_request_to_a_provider_that_sends_single_bytes_times_out(self) -> None:
        """No time limit of a single read helps."""
        with trickling() as url, pytest.raises(ProviderUnavailableError, match=r"more than 0\.3 s"):
            fetch_json("GET", url, max_seconds=SHORT_SECONDS)

    @pytest.mark.parametrize("host", ["a..b", f"{'a' * 64}.invalid", "xn--"])
    def test_a_host_that_cannot_exist_does_not_answer(self, host: str) -> None:
        with pytest.raises(ProviderUnavailableError, match="does not answer"):
            fetch_json("GET", f"http://{host}/keys", max_seconds=MAX_WAIT_SECONDS)

    def test_a_provider_that_refuses_connections_is_an_error(self, provider: Provider) -> None:
        provider.server.__exit__()
        with pytest.raises(ProviderUnavailableError, match="does not answer"):
            _ = provider.client.configuration


class TestExchange:
    def test_the_claims_of_the_id_token_are_returned(self, provider: Provider) -> None:
        provider.publish()
        provider.issue(preferred_username="alice")
        provider.publish_keys()
        assert provider.redeem(USER)["preferred_username"] == "alice"
        body = provider.server.requests[1].decode()
        assert body.startswith("POST /token_endpoint ")
        for part in (
            "grant_type=authorization_code",
            "code=the+code",
            "code_verifier=the+verifier",
            "client_id=promptwire",
        ):
            assert part in body

    @pytest.mark.parametrize("methods", [None, ["client_secret_post"]], ids=["basic", "post"])
    def test_the_secret_is_sent_as_the_provider_wants_it(
        self, raw_server: RawServer, methods: list[str] | None
    ) -> None:
        provider = Provider(raw_server, oidc_client_secret="a:b c%")
        provider.publish(**({} if methods is None else {"token_endpoint_auth_methods_supported": methods}))
        provider.issue()
        provider.publish_keys()
        provider.redeem()
        request = raw_server.requests[1].decode()
        # The base64 of `promptwire:a%3Ab%20c%25`.
        expected = "client_secret=a%3Ab+c%25" if methods else "Basic cHJvbXB0d2lyZTphJTNBYiUyMGMlMjU="
        assert expected in request
        assert ("client_secret" in request) == bool(methods)

    def test_missing_claims_are_asked_for(self, provider: Provider) -> None:
        provider.publish()
        provider.issue()
        provider.publish_keys()
        provider.server.script(reply({"sub": "248", "preferred_username": "alice", "iss": "https://evil.example.com"}))
        found = provider.redeem(USER)
        assert (found["preferred_username"], found["iss"]) == ("alice", provider.issuer)
        assert "Authorization: Bearer an access token" in provider.server.requests[3].decode()

    def test_an_access_token_that_no_header_can_have_is_an_error(self, provider: Provider) -> None:
        provider.publish()
        token = sign(claims(iss=provider.issuer))
        provider.server.script(reply({"id_token": token, "access_token": "\u00e9"}))
        provider.publish_keys()
        with pytest.raises(ProviderUnavailableError, match="userinfo_endpoint does not answer"):
            provider.redeem(USER)

    def test_claims_about_another_user_are_refused(self, provider: Provider) -> None:
        provider.publish()
        provider.issue()
        provider.publish_keys()
        provider.server.script(reply({"sub": "1", "preferred_username": "alice"}))
        with pytest.raises(InvalidIdTokenError, match="another user"):
            provider.redeem(USER)

    @pytest.mark.parametrize(
        ("body", "status", "error"),
        [
            ({"error": "invalid_grant"}, "400 Bad Request", RefusedByProviderError),
            ({"error": "invalid_client"}, "401 Unauthorized", ProviderUnavailableError),
            ({}, "500 Internal Server Error", ProviderUnavailableError),
            ({"access_token": "a"}, "200 OK", InvalidIdTokenError),
            ({"id_token": 1, "access_token": "a"}, "200 OK", InvalidIdTokenError),
        ],
    )
    def test_a_refused_code_is_an_error(
        self, provider: Provider, body: object, status: str, error: type[SignInError]
    ) -> None:
        provider.publish()
        provider.server.script(reply(body, status))
        with pytest.raises(error):
            provider.redeem()

    @pytest.mark.parametrize("key", [KEYS[1], OTHER_KEY], ids=["another id", "the same id"])
    def test_new_keys_are_fetched_if_none_fits(self, provider: Provider, key: dict[str, Any]) -> None:
        provider.publish()
        provider.issue()
        provider.publish_keys([key])
        provider.publish_keys()
        assert provider.redeem()["sub"] == "248"

    def test_keys_are_not_fetched_again_at_once(self, provider: Provider) -> None:
        provider.client = provider.make_client(retry_seconds=3_600)
        provider.publish()
        provider.issue()
        provider.publish_keys([KEYS[1]])
        with pytest.raises(InvalidIdTokenError):
            provider.redeem()
        assert len(provider.server.requests) == 3

    def test_a_secret_is_in_no_error(self, raw_server: RawServer) -> None:
        provider = Provider(raw_server, oidc_client_secret="hush")
        provider.publish()
        provider.server.script(reply({"error": "invalid_client", "error_description": "hush the verifier"}, "401 No"))
        with pytest.raises(ProviderUnavailableError) as raised:
            provider.redeem()
        assert "hush" not in str(raised.value)
        assert "verifier" not in str(raised.value)


class TestCachedFetch:
    def test_a_failure_is_cached_so_that_callers_do_not_wait(self) -> None:
        calls: list[int] = []

        def fetch() -> str:
            calls.append(1)
            raise ProviderUnavailableError("it is down")

        cached = CachedFetch(fetch, retry_seconds=3_600)
        for _ in range(3):
            with pytest.raises(ProviderUnavailableError, match="it is down"):
                cached.get()
        assert len(calls) == 1

    def test_after_an_unexpected_error_it_is_fetched_again(self) -> None:
        answers = iter([ZeroDivisionError(), "the second"])

        def fetch() -> str:
            if isinstance(answer := next(answers), Exception):
                raise answer
            return answer

        cached = CachedFetch(fetch, retry_seconds=0)
        with pytest.raises(ZeroDivisionError):
            cached.get()
        assert cached.get() == "the second"

    def test_the_last_value_stays_while_the_provider_is_unavailable(self) -> None:
        answers = iter(["first"])

        def fetch() -> str:
            try:
                return next(answers)
            except StopIteration:
                raise ProviderUnavailableError("it is down") from None

        cached = CachedFetch(fetch, seconds=0, retry_seconds=0)
        assert [cached.get(), cached.get(), cached.get(refresh=True)] == ["first"] * 3

    def test_an_expired_value_is_fetched_again(self) -> None:
        answers = iter([1, 2])
        cached = CachedFetch(lambda: next(answers), seconds=0)
        assert [cached.get(), cached.get()] == [1, 2]
