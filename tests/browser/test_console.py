"""The console in a real Chromium: operators see the panels, retry by filter, pause a model; all of it accessible."""

from collections.abc import Callable, Collection, Iterator
from uuid import uuid4

import pytest
from playwright.sync_api import Locator, Page, expect

from shared.accounts import users
from shared.db.engine import Sessions, make_engine, make_sessions
from shared.settings import Settings
from tests.support.browser import Gate, Visitor, assert_accessible
from tests.support.client import PASSWORD
from tests.support.failed_prompts import add_failed

pytestmark = pytest.mark.usefixtures("gate")


@pytest.fixture(scope="module")
def sessions(settings: Settings) -> Iterator[Sessions]:
    made = make_sessions(make_engine(settings, application_name="test"))
    yield made
    made.kw["bind"].dispose()


def add_user(sessions: Sessions, **roles: bool) -> tuple[int, str]:
    """Add a user. Returns their id and name."""
    name = f"operator-{uuid4().hex[:8]}"
    with sessions.begin() as session:
        return users.create(session, name, users.hash_password(PASSWORD), **roles).id, name


@pytest.fixture
def console(visit: Callable[..., Visitor], url: str, sessions: Sessions) -> Callable[..., Page]:
    """Open the console as a new user with these roles."""

    def open_console(
        *,
        path: str = "admin",
        is_admin: bool = False,
        is_viewer: bool = False,
        refusals: Collection[int] = (),
        **options: object,
    ) -> Page:
        visitor = visit(f"{url}/{path}", **options)
        visitor.refusals.update(refusals)
        visitor.enter("Log in", add_user(sessions, is_admin=is_admin, is_viewer=is_viewer)[1])
        return visitor.page

    return open_console


@pytest.fixture
def error(sessions: Sessions) -> str:
    """An error with which three prompts of a user have failed."""
    text = f"The provider failed: {uuid4().hex[:8]}"
    add_failed(sessions, add_user(sessions)[0], 3, error=text)
    return text


def panel(page: Page, title: str) -> Locator:
    return page.locator("section").filter(has=page.get_by_role("heading", name=title))


def row(page: Page, title: str, text: str) -> Locator:
    return panel(page, title).get_by_role("row").filter(has_text=text)


def test_an_operator_retries_what_has_failed_and_follows_it(console: Callable[..., Page], error: str) -> None:
    page = console(is_admin=True)
    row(page, "Failures", error).get_by_role("button", name="Retry").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Retry 3 prompts of 1 user?")
    expect(dialog).to_contain_text(error)
    dialog.get_by_role("button", name="Back").click()
    expect(dialog).to_be_hidden()
    row(page, "Failures", error).get_by_role("button", name="Retry").click()
    dialog.get_by_role("button", name="Retry 3 prompts").click()
    operation = row(page, "Operations", error)
    expect(operation).to_contain_text("completed, 3 of 3")
    operation.get_by_role("button", name="Undo").click()
    dialog.get_by_role("button", name="Undo").click()
    expect(operation).to_contain_text("undone, 3 of 3")
    # The button that had the focus is gone.
    expect(panel(page, "Operations").get_by_role("group")).to_be_focused()


def test_an_operator_cancels_by_the_form(
    console: Callable[..., Page], sessions: Sessions, alice: Visitor, username: str, gate: Gate
) -> None:
    page = console(is_admin=True)
    page.get_by_label("Action").select_option("cancel")
    page.get_by_label("User", exact=True).fill("nobody-at-all")
    page.get_by_role("button", name="Count").click()
    expect(page.get_by_text("There is no user nobody-at-all.")).to_be_visible()
    page.get_by_label("User", exact=True).fill(username)
    with gate.closed():
        card = alice.submit("Explain the tides")
        alice.expect_status(card, "Answering")
        page.get_by_role("button", name="Count").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel 1 prompt").click()
        alice.expect_status(card, "Cancelled")


def test_an_operator_pauses_a_model_and_users_see_why(console: Callable[..., Page], alice: Visitor) -> None:
    page = console(is_admin=True, path="admin/")
    model = row(page, "Models", "default")
    model.get_by_role("button", name="Pause").click()
    page.get_by_label("Reason").fill("The contract ends.")
    page.get_by_label("Reason").press("Enter")
    expect(model).to_contain_text("The contract ends.")
    try:
        card = alice.submit("Explain the tides")
        expect(card.locator(".waiting")).to_contain_text("An operator has paused this model: The contract ends.")
    finally:
        model.get_by_role("button", name="Resume").click()
        page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    alice.expect_status(card, "Answered")
    expect(model).to_contain_text("available")


def test_a_viewer_sees_everything_and_no_button(console: Callable[..., Page], error: str) -> None:
    page = console(is_viewer=True, refusals=[503])
    expect(row(page, "Failures", error)).to_be_visible()
    expect(row(page, "Workers", "running").first).to_be_visible()
    expect(page.get_by_text("You are a viewer")).to_be_visible()
    expect(page.locator("#desk button:visible")).to_have_count(0)
    # A panel that fails does not hold up the others.
    unavailable = {"json": {"detail": "Try again later."}, "status": 503, "content_type": "application/problem+json"}
    page.route("**/admin/queue/", lambda route: route.fulfill(**unavailable))
    with page.expect_request("**/admin/workers/"):
        expect(page.get_by_text("Try again later.")).to_be_visible()
    page.unroute("**/admin/queue/")
    page.get_by_role("link", name="Promptwire").click()
    page.get_by_role("link", name="Console").click()
    expect(page.get_by_text("You are a viewer")).to_be_visible()


def test_the_console_refuses_users_without_a_role(console: Callable[..., Page]) -> None:
    page = console()
    expect(page.get_by_role("alert").first).to_contain_text("neither an admin nor a viewer")
    expect(page.locator("#desk")).to_be_hidden()
    page.get_by_role("link", name="Promptwire").click()
    expect(page.locator("#desk")).to_be_visible()
    expect(page.get_by_role("link", name="Console")).to_be_hidden()


def test_the_console_is_accessible_and_fits_the_screen(
    visit: Callable[..., Visitor], console: Callable[..., Page], url: str, error: str
) -> None:
    assert_accessible(visit(f"{url}/admin", reduced_motion="reduce").page)
    page = console(is_admin=True, reduced_motion="reduce")
    expect(row(page, "Failures", error)).to_be_visible()
    expect(row(page, "Users, newest first", "operator").first).to_be_visible()
    assert page.evaluate("scrollY") == 0  # the header is visible after the login
    models = panel(page, "Models").locator(".scroll")
    assert models.evaluate("element => element.scrollWidth <= element.clientWidth")
    assert_accessible(page)
    row(page, "Models", "default").get_by_role("button", name="Pause").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert_accessible(page)
