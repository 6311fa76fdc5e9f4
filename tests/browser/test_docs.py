"""The API's description in a browser: all of it, from this host alone, and ready to be tried."""

from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
from playwright.sync_api import Locator, expect

from tests.support.browser import Visitor
from tests.support.client import PASSWORD


def operation(visitor: Visitor, name: str) -> Locator:
    """An operation by its tag and its id, opened."""
    found = visitor.page.locator(f"#operations-{name}")
    found.locator(".opblock-summary-control").click()
    return found


def answer_to(asked: Locator) -> Locator:
    """What comes when it is tried: the row with the status and the response."""
    asked.get_by_role("button", name="Execute").click()
    return asked.locator(".live-responses-table tr.response")


def test_shows_every_operation_and_asks_no_other_host(visit: Callable[..., Visitor], url: str) -> None:
    described = httpx.get(f"{url}/openapi.json").json()["paths"].values()
    reader = visit(f"{url}/docs")
    hosts: list[str] = []
    reader.page.on("request", lambda request: hosts.append(urlsplit(request.url).netloc))
    reader.page.reload()
    expect(reader.page.locator(".opblock")).to_have_count(sum(len(path) for path in described))
    expect(reader.page.get_by_role("heading", name="Quick start")).to_be_visible()
    assert set(hosts) == {urlsplit(url).netloc}


def test_whoever_logs_in_there_can_try_the_rest(visit: Callable[..., Visitor], url: str, username: str) -> None:
    body = {"username": username, "password": PASSWORD}
    httpx.post(f"{url}/auth/register/", json=body).raise_for_status()
    reader = visit(f"{url}/docs")
    login = operation(reader, "Auth-login")
    login.locator("textarea").fill(httpx.Request("POST", url, json=body).content.decode())
    expect(answer_to(login)).to_contain_text("access")
    answer = answer_to(operation(reader, "Prompts-submitPrompt"))
    expect(answer).to_contain_text("202")
    expect(answer).to_contain_text(f'"user": "{username}"')


def test_a_token_can_be_pasted(visit: Callable[..., Visitor], url: str, username: str) -> None:
    body = {"username": username, "password": PASSWORD}
    httpx.post(f"{url}/auth/register/", json=body).raise_for_status()
    reader = visit(f"{url}/docs")
    reader.page.get_by_role("button", name="Authorize").click()
    dialog = reader.page.locator(".dialog-ux")
    dialog.locator("input").fill(httpx.post(f"{url}/login/", json=body).json()["access"])
    dialog.get_by_role("button", name="Apply credentials").click()
    dialog.get_by_role("button", name="Close").last.click()
    expect(answer_to(operation(reader, "Prompts-listPrompts"))).to_contain_text("200")
