"""The page with the API's documentation: it is complete, self-contained, and can send requests."""

from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
from playwright.sync_api import Locator, expect

from tests.support.browser import Visitor
from tests.support.client import PASSWORD


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


def test_a_login_in_the_documentation_authorizes_the_other_operations(
    visit: Callable[..., Visitor], url: str, username: str
) -> None:
    body = {"username": username, "password": PASSWORD}
    httpx.post(f"{url}/auth/register/", json=body).raise_for_status()
    reader = visit(f"{url}/docs")
    login = operation(reader, "Auth-login")
    login.locator("textarea").fill(httpx.Request("POST", url, json=body).content.decode())
    expect(execute(login)).to_contain_text("access")
    row = execute(operation(reader, "Prompts-submitPrompt"))
    expect(row).to_contain_text("202")
    expect(row).to_contain_text(f'"user": "{username}"')
