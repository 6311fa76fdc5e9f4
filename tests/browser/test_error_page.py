"""The page that a browser shows for an unknown address."""

from collections.abc import Callable

from playwright.sync_api import expect

from tests.support.browser import Visitor, assert_accessible


def test_an_unknown_address_has_a_page_that_leads_back(visit: Callable[..., Visitor], url: str) -> None:
    reader = visit(url, reduced_motion="reduce")
    reader.refusals.add(404)
    reader.page.goto(f"{url}/nothing/here")
    expect(reader.page.get_by_role("heading", name="Page not found")).to_be_visible()
    assert_accessible(reader.page)
    reader.page.get_by_role("link", name="Back to Promptwire").click()
    expect(reader.page).to_have_url(f"{url}/")
