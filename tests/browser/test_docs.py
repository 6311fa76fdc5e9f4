"""The page with the API's documentation: it is complete, self-contained, and can send requests."""

from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.browser import Visitor, assert_no_violations
from tests.support.client import PASSWORD

#: Removes closed operations, schemas and rows of tables with the same elements, classes and colours as an earlier one.
KEEP_ONE_OF_EACH_KIND = """
    const seen = new Set();
    for (const block of document.querySelectorAll(".opblock:not(.is-open), .models article, tbody > tr")) {
        const elements = [block, ...block.querySelectorAll("*")];
        const looks = elements.map((each) => each.localName + each.getAttribute("class") + each.getAttribute("style"));
        const kind = [...new Set(looks)].sort().join();
        if (seen.has(kind)) block.remove();
        seen.add(kind);
    }
"""


def shorten(page: Page, url: str, *names: str) -> None:
    """Leave the operations with these names in the document, and one more of each method.

    The browser needs seconds to build the page of all operations, and again when one is opened.
    """
    document = httpx.get(f"{url}/openapi.json").json()
    for section in ("paths", "webhooks"):
        methods: set[str] = set()
        for item in document[section].values():
            for method, operation in list(item.items()):
                if f"{operation['tags'][0]}-{operation.get('operationId')}" not in names:
                    if method in methods:
                        del item[method]
                    methods.add(method)
    page.route("**/openapi.json", lambda route: route.fulfill(json=document))


@pytest.fixture
def read(visit: Callable[..., Visitor], url: str) -> Callable[..., Visitor]:
    """Opens the documentation of these operations."""

    def read(*names: str, path: str = "/docs") -> Visitor:
        reader = visit("about:blank")
        shorten(reader.page, url, *names)
        reader.page.goto(f"{url}{path}")
        expect(reader.page.locator(".opblock")).not_to_have_count(0)
        return reader

    return read


def operation(visitor: Visitor, name: str) -> Locator:
    """Open an operation, which is named by its tag and id."""
    block = visitor.page.locator(f"#operations-{name}")
    block.locator(".opblock-summary-control").click()
    return block


def execute(operation: Locator) -> Locator:
    """Execute an operation and return the row with the status and the response."""
    operation.get_by_role("button", name="Execute").click()
    return operation.locator(".live-responses-table tr.response")


def test_the_documentation_shows_every_operation_loads_nothing_from_other_hosts_and_takes_a_pasted_token(
    visit: Callable[..., Visitor], url: str, username: str
) -> None:
    """Together, because the browser needs seconds to build the page."""
    document = httpx.get(f"{url}/openapi.json").json()
    operations = [*document["paths"].values(), *document["webhooks"].values()]
    reader = visit(url)
    hosts: list[str] = []
    reader.page.on("request", lambda request: hosts.append(urlsplit(request.url).netloc))
    reader.page.goto(f"{url}/docs")
    expect(reader.page.locator(".opblock")).to_have_count(sum(map(len, operations)))
    expect(reader.page.get_by_role("heading", name="Quick start")).to_be_visible()

    body = {"username": username, "password": PASSWORD}
    httpx.post(f"{url}/auth/register/", json=body).raise_for_status()
    reader.page.get_by_role("button", name="Authorize").click()
    dialog = reader.page.locator(".dialog-ux")
    dialog.locator("input").fill(httpx.post(f"{url}/login/", json=body).json()["access"])
    dialog.get_by_role("button", name="Apply credentials").click()
    dialog.get_by_role("button", name="Close").last.click()
    expect(execute(operation(reader, "Prompts-listPrompts"))).to_contain_text("200")
    assert set(hosts) == {urlsplit(url).netloc}


def test_the_quick_start_has_the_address_of_this_server(read: Callable[..., Visitor], url: str) -> None:
    quick_start = read().page.locator("pre", has_text="Register (if registration is open)")
    expect(quick_start).to_contain_text(f"URL={url} JSON=")


@pytest.mark.parametrize("path", ["/docs", "/docs/"])
def test_the_documentation_leads_back_to_the_page(read: Callable[..., Visitor], url: str, path: str) -> None:
    reader = read(path=path)
    reader.page.get_by_role("link", name="Back to Promptwire").click()
    expect(reader.page).to_have_url(f"{url}/")


def test_the_documentation_is_accessible_in_light_and_dark_colours(read: Callable[..., Visitor], username: str) -> None:
    opened = ("Prompts-submitPrompt", "Prompts-getPrompt", "Webhooks-deleteWebhook", "Auth-login")
    reader = read(*opened)
    *_, login = (operation(reader, name) for name in opened)
    reader.refusals.add(401)
    login.locator("textarea").fill(f'{{"username": "{username}", "password": "a wrong password"}}')
    expect(execute(login)).to_contain_text("401")
    reader.page.get_by_role("button", name="Schemas").click()
    reader.page.evaluate(KEEP_ONE_OF_EACH_KIND)  # axe needs most of a minute for all of them
    for scheme, background in (("light", "rgb(250, 250, 250)"), ("dark", "rgb(28, 32, 34)")):
        reader.page.emulate_media(color_scheme=scheme)
        expect(reader.page.locator("html")).to_have_css("background-color", background)
        reader.page.evaluate("Promise.allSettled(document.getAnimations().map((each) => each.finished))")
        assert_no_violations(reader.page, only_contrast=scheme == "dark")


def test_the_documentation_has_the_colours_that_were_chosen_on_the_page(
    visit: Callable[..., Visitor], url: str
) -> None:
    reader = visit(url, color_scheme="light")
    reader.page.get_by_role("button", name="Dark colours").click()
    shorten(reader.page, url)
    reader.page.goto(f"{url}/docs")
    expect(reader.page.locator("html")).to_have_class("dark-mode")


def test_a_login_in_the_documentation_authorizes_the_other_operations(
    read: Callable[..., Visitor], url: str, username: str
) -> None:
    body = {"username": username, "password": PASSWORD}
    httpx.post(f"{url}/auth/register/", json=body).raise_for_status()
    reader = read("Auth-login", "Prompts-submitPrompt")
    login = operation(reader, "Auth-login")
    login.locator("textarea").fill(httpx.Request("POST", url, json=body).content.decode())
    expect(execute(login)).to_contain_text("access")
    row = execute(operation(reader, "Prompts-submitPrompt"))
    expect(row).to_contain_text("202")
    expect(row).to_contain_text(f'"user": "{username}"')
