"""Which hosts requests may name, which origins may open sockets, and when browsers are told to use HTTPS only."""

from functools import cache
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from api.app import create_app
from api.http.public_address import STRICT_TRANSPORT_SECURITY, PublicAddress
from api.services import make_services
from tests.support.client import assert_problem
from tests.support.servers import make_settings


@cache
def app(**changes: Any) -> Flask:
    settings = make_settings(**changes)
    return create_app(settings, make_services(settings))


def client(**changes: object) -> FlaskClient:
    return app(**changes).test_client()


def hsts(response: TestResponse) -> str | None:
    return response.headers.get("Strict-Transport-Security")


class TestHosts:
    PRODUCTION = {"app_env": "prod", "public_url": "https://example.com"}

    @pytest.mark.parametrize(
        "path", ["/", "/static/app.js", "/docs", "/openapi.json", "/prompts/", "/ws/prompts/alice/", "/x"]
    )
    def test_production_refuses_other_hosts(self, path: str) -> None:
        with capture_logs() as logs:
            response = client(**self.PRODUCTION).get(path, headers={"Host": "evil.example"})
        problem = assert_problem(response, 400)
        assert "PUBLIC_URL" not in problem["detail"]
        assert "X-Request-ID" in response.headers
        (line,) = (line for line in logs if line["event"].startswith("host refused"))
        assert line["host"] == "evil.example"
        assert "PUBLIC_URL or ALLOWED_HOSTS" in line["event"]

    @pytest.mark.parametrize("host", ["example.com", "example.com:8443", "localhost:8000", "127.0.0.1:8000"])
    def test_production_allows_the_public_host_and_this_machine(self, host: str) -> None:
        assert client(**self.PRODUCTION).get("/openapi.json", headers={"Host": host}).status_code == 200

    @pytest.mark.parametrize("path", ["/livez", "/livez/", "/readyz/", "/metrics"])
    def test_health_checks_may_name_any_host(self, path: str) -> None:
        response = client(**self.PRODUCTION).get(path, headers={"Host": "10.0.0.7:8000"})
        assert response.status_code in (200, 403, 503)  # metrics need a token; the database is unavailable

    @pytest.mark.parametrize(
        ("proxies", "host", "forwarded", "status"),
        [
            (0, "example.com", "evil.example", 200),  # not looked at
            (0, "evil.example", "example.com", 400),
            (1, "evil.example", "example.com", 400),
            (1, "example.com", "evil.example", 400),
            (1, "127.0.0.1:8000", "evil.example, example.com", 200),
            (1, "127.0.0.1:8000", "example.com, evil.example", 400),
        ],
    )
    def test_a_forwarded_host_does_not_evade_the_check(
        self, proxies: int, host: str, forwarded: str, status: int
    ) -> None:
        headers = {"Host": host, "X-Forwarded-Host": forwarded}
        response = client(**self.PRODUCTION, trusted_proxies=proxies).get("/openapi.json", headers=headers)
        assert response.status_code == status

    def test_development_allows_any_host(self) -> None:
        assert client().get("/openapi.json", headers={"Host": "anything.example"}).status_code == 200


class TestStrictTransportSecurity:
    @pytest.mark.parametrize(
        ("changes", "forwarded", "expected"),
        [
            ({}, None, None),
            ({}, "https", None),
            ({"trusted_proxies": 1}, "https", STRICT_TRANSPORT_SECURITY),
            ({"trusted_proxies": 1}, "http", None),
            ({"trusted_proxies": 1}, None, None),
            ({"trusted_proxies": 2}, "https", None),
            ({"public_url": "http://example.com"}, None, None),
            ({"public_url": "https://example.com"}, None, STRICT_TRANSPORT_SECURITY),
            ({"public_url": "https://example.com", "trusted_proxies": 1}, "http", None),
            ({"public_url": "https://example.com"}, "http", STRICT_TRANSPORT_SECURITY),
        ],
    )
    def test_the_header_is_sent_where_clients_use_https(
        self, changes: dict[str, object], forwarded: str | None, expected: str
    ) -> None:
        headers = {} if forwarded is None else {"X-Forwarded-Proto": forwarded}
        requests = client(**changes)
        assert {hsts(requests.get(path, headers=headers)) for path in ("/livez/", "/prompts/", "/nowhere")} == {
            expected
        }


@pytest.mark.parametrize(
    ("settings", "allowed", "refused"),
    [
        ({}, ["example.com", "", "evil.example:80", "10.0.0.1"], []),
        ({"allowed_hosts": ("a.example",)}, ["a.example", "A.example.:8000", "localhost"], ["b.a.example", "example"]),
        ({"allowed_hosts": (".a.example",)}, ["a.example", "b.a.example:80", "c.b.a.example"], ["xa.example", ""]),
        (
            {"app_env": "prod"},
            ["localhost:8000", "127.0.0.1", "[::1]:8000"],
            ["10.0.0.1", "localhost.evil.example", "evil.example:127.0.0.1", "127.0.0.1@evil.example", "::1", "", "."],
        ),
        (
            {"app_env": "prod", "public_url": "https://Example.com:8443/promptwire"},
            ["example.com", "example.com:8443", "EXAMPLE.com:9", "127.0.0.1:8000"],
            ["www.example.com", "example.com.evil.example", "example.com:8443:8443"],
        ),
        ({"app_env": "prod", "allowed_hosts": ("*",)}, ["anything", ""], []),
        ({"app_env": "prod", "allowed_hosts": ("a.example",), "public_url": "https://b.example"}, ["b.example"], []),
    ],
)
def test_only_the_hosts_of_the_settings_are_allowed(
    settings: dict[str, object], allowed: list[str], refused: list[str]
) -> None:
    address = PublicAddress(make_settings(**settings))
    assert [host for host in (*allowed, *refused) if address.allows_host(host)] == allowed


@pytest.mark.parametrize(
    ("origin", "host", "is_allowed"),
    [
        ("https://example.com:8443", "127.0.0.1:8000", True),
        ("https://example.com", "127.0.0.1:8000", False),
        ("http://example.com:8443", "127.0.0.1:8000", False),
        ("https://app.example", "127.0.0.1:8000", True),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("null", "127.0.0.1:8000", False),
        ("null", "", False),  # of a Host that is not valid
        ("https://evil.example", "example.com:8443", False),
    ],
)
def test_only_pages_of_allowed_origins_may_open_sockets(origin: str, host: str, is_allowed: bool) -> None:
    settings = make_settings(public_url="https://example.com:8443/promptwire", allowed_origins=("https://app.example",))
    assert PublicAddress(settings).allows_origin(origin, host) == is_allowed
