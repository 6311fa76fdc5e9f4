"""The page that a browser shows for an unknown address."""

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.support.browser import PHONE, Visitor


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_unknown_address_has_a_page_that_leads_back(visit: Callable[..., Visitor], url: str, scheme: str) -> None:
    reader = visit(url, color_scheme=scheme, viewport=PHONE)
    reader.refusals.add(404)
    reader.page.goto(f"{url}/nothing/here")
    expect(reader.page.get_by_role("heading", name="Page not found")).to_be_visible()
    results = Axe().run(reader.page)
    assert results.violations_count == 0, results.generate_report()
    assert reader.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    reader.page.get_by_role("link", name="Back to Promptwire").click()
    expect(reader.page).to_have_url(f"{url}/")
