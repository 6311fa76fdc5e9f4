"""Signing in with an identity provider, in the page: a real provider, and the same Chromium as the other tests."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from shared.settings import Settings
from tests.support import oidc, processes
from tests.support.browser import Visitor, assert_no_violations
from tests.support.processes import free_port
from tests.support.servers import Servers

BUTTON = "Continue with Example Inc."


@pytest.fixture(scope="module")
def url(browser: object, settings: Settings) -> Iterator[str]:
    port = free_port()
    with oidc.provider() as issuer:
        changes = {"oidc_issuer": issuer, "oidc_client_id": "public", "oidc_name": "Example Inc."}
        changed = Servers.changed(settings, public_url=f"http://127.0.0.1:{port}", **changes)
        with processes.api(changed, port=port) as running:
            yield running


@pytest.fixture
def visitor(visit: Callable[..., Visitor], url: str) -> Visitor:
    visitor = visit(f"{url}/?from=a-link")
    # The provider's pages load a font from elsewhere.
    visitor.page.route("https://fonts.googleapis.com/**", lambda route: route.fulfill(content_type="text/css"))
    return visitor


def sign_in(page: Page, name: str) -> None:
    """Press the page's button, and log in and consent at the provider."""
    page.get_by_role("button", name=BUTTON).click()
    page.locator("[name=login]").fill(name)
    page.locator("[name=password]").fill("any")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue", exact=True).click()


def test_a_user_signs_in_reloads_and_logs_out(visitor: Visitor, url: str, username: str) -> None:
    page = visitor.page
    expect(page.get_by_role("button", name=BUTTON)).to_be_visible()
    assert_no_violations(page)
    sign_in(page, username)
    visitor.expect_live()
    expect(page.locator("#who")).to_have_text(username)
    assert page.url == f"{url}/?from=a-link"
    page.reload()
    visitor.expect_live()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name=BUTTON)).to_be_visible()


def test_the_page_says_why_a_sign_in_failed(visitor: Visitor, url: str) -> None:
    page = visitor.page
    page.get_by_role("button", name=BUTTON).click()
    page.get_by_role("link", name="Cancel").click()
    expect(page.locator("#login-error")).to_have_text("The identity provider did not sign you in.")
    assert page.url == f"{url}/?from=a-link"


def test_a_tab_refuses_a_code_that_it_did_not_ask_for(visit: Callable[..., Visitor], url: str) -> None:
    page = visit(f"{url}/#sign-in=a-code-of-somebody-else").page
    expect(page.locator("#login-error")).to_contain_text("was started in another tab")
    expect(page.locator("#welcome")).to_be_visible()
    assert page.url == f"{url}/"


def test_the_owner_of_the_name_links_the_two(visitor: Visitor, username: str) -> None:
    page = visitor.page
    visitor.register(username)
    page.get_by_role("button", name="Log out").click()
    visitor.refusals.add(409)
    sign_in(page, username)
    expect(page.locator("#login-error")).to_contain_text("is taken")
    page.get_by_label("Also let me log in with Example Inc.").check()
    assert_no_violations(page)
    visitor.enter("Log in", username)
    visitor.expect_live()
    page.get_by_role("button", name="Log out").click()
    # The provider still knows the user, who only has to consent.
    page.get_by_role("button", name=BUTTON).click()
    page.get_by_role("button", name="Continue", exact=True).click()
    visitor.expect_live()
    expect(page.locator("#who")).to_have_text(username)
