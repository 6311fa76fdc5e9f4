"""The doctor names what is wrong with the public URL. tests/e2e/test_reverse_proxies.py has URLs that work."""

from collections.abc import Iterator

import pytest

from infra.doctor import Finding, NotCheckedError
from infra.doctor.public_url import public_url
from shared.settings import Settings
from tests.support import tcp_proxy
from tests.support.tcp_proxy import Rewrite, TcpProxy, is_upgrade, with_header


@pytest.fixture
def proxy(url: str) -> Iterator[TcpProxy]:
    with tcp_proxy.running(url) as running:
        yield running


def findings(settings: Settings, **changes: object) -> list[Finding]:
    return list(public_url(settings.model_copy(update=changes)))


def refuse(path: bytes) -> Rewrite:
    return lambda head: None if head.startswith(b"GET " + path) else head


@pytest.mark.parametrize(
    ("rewrite", "refusal", "problem", "remedy"),
    [
        (lambda head: with_header(head, b"Upgrade", None), 0, "426: the proxy removes Upgrade", "forward Upgrade"),
        (
            lambda head: with_header(head, b"Host", b"127.0.0.1:1"),
            0,
            "403: pages of http://127",
            "this PUBLIC_URL, or add",
        ),
        (lambda head: None if is_upgrade(head) else head, 404, "404: the proxy does not send this path", "Upgrade"),
        (lambda head: None if is_upgrade(head) else head, 520, "520: no WebSocket", "forward Upgrade"),
        (refuse(b"/livez"), 502, "/livez/ answers 502", "Check the proxies"),
        (refuse(b"/ "), 400, "does not allow the host", "ALLOWED_HOSTS"),
        (refuse(b"/ "), 500, "does not show the page (500)", "Behind a proxy"),
        (refuse(b"/static"), 404, "app.js is not the page's script (404)", "all paths below"),
    ],
)
def test_the_doctor_names_what_a_proxy_does_wrong(
    settings: Settings, proxy: TcpProxy, rewrite: Rewrite, refusal: int, problem: str, remedy: str
) -> None:
    proxy.rewrite, proxy.refusal = rewrite, refusal
    (finding,) = findings(settings, public_url=proxy.url)
    assert finding.severity == "wrong"
    assert problem in finding.problem
    assert remedy in finding.remedy


def test_the_doctor_names_a_prefix_that_does_not_lead_to_the_api(settings: Settings, url: str) -> None:
    (finding,) = findings(settings, public_url=f"{url}/nowhere")
    assert "the API is not below /nowhere" in finding.problem


def test_the_doctor_warns_of_operators_paths_that_are_public_in_production(settings: Settings, url: str) -> None:
    unencrypted, *others = findings(settings, public_url=url, app_env="prod")
    assert "unencrypted" in unencrypted.problem
    assert [(f.severity, f.problem.split()[0]) for f in others] == [
        ("beware", f"{url}/metrics"),
        ("beware", f"{url}/readyz"),
    ]
    assert findings(settings, public_url=url) == []


def test_the_doctor_warns_of_production_without_a_public_url(settings: Settings) -> None:
    (finding,) = findings(settings, app_env="prod")
    assert finding.severity == "beware"
    for other in ({}, {"app_env": "prod", "allowed_hosts": ("a.example",)}):
        with pytest.raises(NotCheckedError):
            findings(settings, **other)
