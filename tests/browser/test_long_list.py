"""The list with many prompts, and answers that grow: the page with a server that the test plays."""

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, Route, WebSocketRoute, expect

from tests.support.browser import PHONE, Visitor
from tests.support.client import PASSWORD
from tests.support.servers import wait_until

_ANSWER = "Here is an **explanation**.\n\n- one `a`\n- two\n\n```python\ndef tide(moon):\n    return moon\n```\n\nWell."

_LATER = "2026-01-02T00:00:00.000Z"


def resource(id: int, **fields: Any) -> dict[str, Any]:
    known = {"id": id, "user": "alice", "prompt_text": f"prompt number {id}", "response_text": _ANSWER, "attempt": 1}
    known |= {"status": "completed", "error": None, "tool_calls": None, "finish_reason": "stop", "waiting_for": None}
    known |= {"created_at": "2026-01-01T00:00:00.000Z", "completed_at": "2026-01-01T00:00:01.000Z", "position": None}
    return known | {"metadata": None, "priority": "default", "emptied_at": None, "model": "default"} | fields


class PlayedServer:
    """Answers the page's requests from `prompts`, by id, and sends events to its socket."""

    def __init__(self, page: Page, prompts: list[dict[str, Any]]) -> None:
        self.prompts = {prompt["id"]: prompt for prompt in prompts}
        self.lists: list[str] = []
        self.searches: list[dict[str, str]] = []
        self._socket: WebSocketRoute | None = None
        page.route("**/login/", lambda route: route.fulfill(json={"access": "a", "refresh": "r"}))
        page.route("**/account/", lambda route: route.fulfill(json={"is_admin": False, "is_viewer": False}))
        page.route(
            "**/account/export/", lambda route: route.fulfill(body='{"id": 1}\n', content_type="application/jsonl")
        )
        page.route(re.compile(r"/prompts/\d+/$"), self._one)
        page.route(re.compile(r"/prompts/\?"), self._list)
        page.route(re.compile(r"/prompts/similar/\?"), self._similar)
        page.route_web_socket(re.compile(r"/ws/prompts/"), self._join)

    def send(self, **event: Any) -> None:
        assert self._socket
        self._socket.send(json.dumps(event))

    def grow(self, id: int, index: int, text: str) -> None:
        self.send(type="prompt.delta", id=id, attempt=1, index=index, text=text)

    def _join(self, socket: WebSocketRoute) -> None:
        assert "all=true" in socket.url
        self._socket = socket
        socket.on_message(lambda message: None)
        self.send(type="connected", message="", seq=0)

    def _one(self, route: Route) -> None:
        route.fulfill(json=self.prompts[int(route.request.url.split("/")[-2])])

    def _list(self, route: Route) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(route.request.url).query).items()}
        self.lists.append(route.request.url)
        status, before, limit = query.get("status"), int(query.get("cursor", 10**9)), int(query["limit"])
        found = [each for each in self.prompts.values() if each["id"] < before and status in (None, each["status"])]
        found = sorted(found, key=lambda prompt: -prompt["id"])
        rest = f"&status={status}" if status else ""
        link = f'</prompts/?limit={limit}&cursor={found[limit - 1]["id"]}{rest}>; rel="next"' if found[limit:] else ""
        route.fulfill(json=found[:limit], headers={"Link": link})

    def _similar(self, route: Route) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(route.request.url).query).items()}
        self.searches.append(query)
        found = list(self.prompts.values())[: int(query["limit"])]
        route.fulfill(json=[{**each, "similarity_score": 0.5} for each in found], headers={"Link": ""})


@pytest.fixture
def enter(visit: Callable[..., Visitor], url: str) -> Callable[..., tuple[Visitor, PlayedServer]]:
    """Logs in at a page whose user has these prompts."""

    def enter(prompts: list[dict[str, Any]], **options: Any) -> tuple[Visitor, PlayedServer]:
        visitor = visit(url, **options)
        server = PlayedServer(visitor.page, prompts)
        visitor.enter("Log in", "alice", PASSWORD)
        visitor.expect_live()
        return visitor, server

    return enter


def scroll(page: Page, to: str) -> None:
    page.evaluate(f"scrollTo({{ top: {to}, behavior: 'instant' }})")


def wait_for(page: Page, expression: str) -> None:
    """Wait until an expression is true. (The page's policy forbids `wait_for_function` to evaluate a text.)"""
    wait_until(lambda: page.evaluate(expression), what=expression)


def filled(page: Page) -> int:
    return page.evaluate("document.querySelectorAll('#prompts .about').length")


_SHOW_MANY = """async (prompt) => {
    const { Cards } = await import("/static/cards.js");
    const { Prompts } = await import("/static/prompts.js");
    const cards = new Cards(document.getElementById("prompts"), () => {});
    const prompts = new Prompts({ changed: (id) => cards.put(prompts.get(id)), ended: () => {}, unknown: () => {} });
    for (let id = 10_000; id > 0; id--) {
        prompts.put([JSON.parse(JSON.stringify({ ...prompt, id, prompt_text: `prompt number ${id}` }))], 0);
    }
    window.kept = [cards, prompts];
}"""


_IS_FILLED = """[...document.querySelectorAll("#prompts .card:not(:empty)")].some((card) => {
    const { top, bottom } = card.getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
})"""


def test_ten_thousand_prompts_are_held_in_little_memory_and_few_elements(enter: Callable[..., Any]) -> None:
    alice, _ = enter([])
    page = alice.page
    session = page.context.new_cdp_session(page)

    def heap() -> float:
        session.send("HeapProfiler.collectGarbage")
        return session.send("Runtime.getHeapUsage")["usedSize"] / 1e6

    before = heap()
    page.evaluate(_SHOW_MANY, resource(0))
    expect(alice.cards).to_have_count(10_000)
    for share in (0.6, 1, 0.3):
        scroll(page, f"document.body.scrollHeight * {share}")
        wait_for(page, _IS_FILLED)
        assert filled(page) < 100
    assert heap() - before < 50


def test_the_list_goes_on_before_its_end_is_reached(enter: Callable[..., Any]) -> None:
    alice, _ = enter([resource(id) for id in range(1, 321)])
    expect(alice.cards).to_have_count(20)

    def scroll_on() -> bool:
        scroll(alice.page, "document.body.scrollHeight")  # which grows when cards come near
        return alice.cards.count() == 320

    wait_until(scroll_on, what="the end of the list")
    alice.cards.last.scroll_into_view_if_needed()
    expect(alice.cards.last.locator(".prompt")).to_have_text("prompt number 1")
    expect(alice.page.get_by_role("button", name="More")).to_be_hidden()


def test_cards_are_filled_when_others_go_and_when_the_list_is_shown_again(enter: Callable[..., Any]) -> None:
    alice, server = enter([resource(id) for id in range(1, 61)])
    page = alice.page
    expect(alice.cards).to_have_count(20)
    scroll(page, "document.body.scrollHeight")
    expect(alice.cards).to_have_count(60)
    scroll(page, "0")
    wait_until(lambda: filled(page) < 60, what="cards that are not filled")
    alice.search("number")
    server.prompts[61] = ended = resource(61, completed_at=_LATER)
    server.send(**ended, type="prompt.completed", seq=1)
    expect(alice.cards).to_have_count(61)
    page.get_by_role("searchbox").press("Escape")
    expect(alice.card("prompt number 61")).to_be_visible()
    # Without a scroll.
    for seq, id in enumerate(range(45, 61), 2):
        server.send(type="prompt.deleted", id=id, seq=seq)
    expect(alice.cards).to_have_count(45)
    wait_until(lambda: filled(page) == 45, what="filled cards")


def test_a_batch_of_ten_thousand_does_not_freeze_the_page(enter: Callable[..., Any]) -> None:
    alice, server = enter([resource(id) for id in range(1, 41)])
    page = alice.page
    expect(alice.card("prompt number 40")).to_be_visible()
    batch = [resource(id, status="queued", response_text=None, completed_at=None) for id in range(41, 10_041)]
    server.prompts |= {prompt["id"]: prompt for prompt in batch}
    expect(alice.card("prompt number 10040")).to_be_visible()  # found by a probe
    expect(page).to_have_title(re.compile(r"^\(\d+\) Promptwire$"))
    page.evaluate("window.beats = 0; setInterval(() => beats += 1, 50)")
    for seq, prompt in enumerate(batch[-3_000:], 1):
        server.prompts[prompt["id"]] = ended = resource(prompt["id"])
        server.send(**ended, type="prompt.completed", seq=seq)
    expect(alice.card("prompt number 10040").locator(".status")).to_have_text("Answered")
    assert page.evaluate("beats") > 5
    assert alice.cards.count() < 1_000  # older ones are fetched when the user gets there
    expect(page).to_have_title("Promptwire")


def test_who_reads_older_prompts_is_not_disturbed_by_many_new_ones(enter: Callable[..., Any]) -> None:
    alice, server = enter([resource(id) for id in range(1, 301)])
    page = alice.page
    expect(alice.cards).to_have_count(20)
    scroll(page, "2000")
    top = "document.elementFromPoint(innerWidth / 2, 300).closest('li')?.dataset.id"
    wait_for(page, top)
    seen = page.evaluate(top)
    server.prompts |= {id: resource(id) for id in range(301, 1_301)}
    newer = page.get_by_role("button", name="Show newer prompts")
    expect(newer).to_be_visible()
    assert page.evaluate(top) == seen
    newer.click()
    expect(alice.card("prompt number 1300")).to_be_visible()
    expect(newer).to_be_hidden()
    assert page.evaluate("scrollY") == 0


def test_prompts_are_filtered_searched_beyond_the_first_results_and_exported(enter: Callable[..., Any]) -> None:
    prompts = [resource(id, status="failed" if id % 10 == 0 else "completed", error="Broken.") for id in range(1, 61)]
    alice, server = enter(prompts)
    page = alice.page
    expect(alice.cards).to_have_count(20)
    page.get_by_label("Show prompts that are").select_option("Failed")
    expect(alice.cards).to_have_count(6)
    expect(alice.cards.first).to_contain_text("prompt number 60")
    # What no longer belongs there goes, and what does comes.
    ended = [resource(60, completed_at=_LATER), resource(61, status="failed"), resource(62)]
    server.prompts |= {prompt["id"]: prompt for prompt in ended}
    del server.prompts[50]
    for seq, prompt in enumerate(ended, 1):
        server.send(**prompt, type=f"prompt.{prompt['status']}", seq=seq)
    server.send(type="prompt.deleted", id=50, seq=4)
    ids = [61, 40, 30, 20, 10]
    expect(page.locator("#prompts .prompt")).to_have_text([f"prompt number {id}" for id in ids])
    page.get_by_label("Show prompts that are").select_option("Queued")
    expect(page.get_by_text("You have no prompts with the status “Queued”.")).to_be_visible()
    page.get_by_label("Show prompts that are").select_option("All")

    found = alice.search("number")
    expect(found).to_have_count(10)
    page.get_by_role("button", name="More results").dblclick()
    expect(found).to_have_count(50)
    expect(found.nth(10)).to_be_focused()
    # An answer elsewhere repeats the search. The focus stays.
    server.prompts[1] = resource(1, prompt_text="another number")
    server.send(**resource(62, completed_at="2026-01-03T00:00:00.000Z"), type="prompt.completed", seq=5)
    expect(found.first).to_contain_text("another number")
    expect(found.nth(10)).to_be_focused()
    page.get_by_label("How to search").select_option("by words")
    wait_until(lambda: page.evaluate("true") and server.searches[-1]["mode"] == "text", what="a search by words")
    assert ["max_score" in search for search in (server.searches[0], server.searches[-1])] == [True, False]
    page.get_by_role("searchbox").press("Escape")
    with page.expect_download() as saving:
        page.get_by_role("button", name="Export").click()
    assert re.fullmatch(r"promptwire-\d{4}-\d\d-\d\d\.jsonl", saving.value.suggested_filename)
    assert saving.value.path().read_text() == '{"id": 1}\n'


@pytest.mark.parametrize("viewport", [PHONE, {"width": 1280, "height": 800}], ids=["phone", "desktop"])
def test_an_answer_is_followed_while_its_end_is_visible(enter: Callable[..., Any], viewport: dict[str, int]) -> None:
    running = resource(3, status="processing", response_text=None, completed_at=None)
    alice, server = enter([running, resource(2), resource(1)], viewport=viewport)
    page = alice.page
    card = alice.card("prompt number 3")
    alice.expect_status(card, "Answering")
    below = "document.querySelector('#prompts .card').getBoundingClientRect().bottom - innerHeight"
    indexes = iter(range(1_000))

    def grow() -> None:
        for _ in range(20):
            server.grow(3, index := next(indexes), f"line {index}\n")
        expect(alice.answer(card)).to_contain_text(f"line {index}")

    for _ in range(4):
        grow()
    assert page.evaluate("scrollY") > 300
    assert page.evaluate(below) <= 1
    page.mouse.move(200, 300)
    page.mouse.wheel(0, -200)
    wait_for(page, f"{below} > 100")
    grow()
    assert page.evaluate(below) > 300
    assert page.evaluate("document.querySelector('#prompts .answer').clientHeight > innerHeight")
    # Who has seen it grow has it as a whole afterwards; when it is loaded, it is folded.
    server.prompts[3] = ended = resource(3, response_text="line\n" * 100)
    server.send(**ended, type="prompt.completed", seq=1)
    alice.expect_status(card, "Answered")
    expect(card.get_by_role("button", name="Show less of the answer")).to_be_visible()
    page.reload()
    expect(card.get_by_role("button", name="Show more of the answer")).to_be_visible()
    height = "document.querySelector('#prompts .answer').clientHeight"
    folded = page.evaluate(height)
    card.get_by_role("button", name="Show more of the answer").click()
    assert page.evaluate(height) > 2 * folded
    boxes = "[...document.querySelectorAll('.card *')].filter((each) => getComputedStyle(each).overflowY === 'auto')"
    assert page.evaluate(f"{boxes}.every((each) => each.scrollHeight <= each.clientHeight)")


def test_texts_from_right_to_left_are_aligned_at_the_right(enter: Callable[..., Any]) -> None:
    alice, _ = enter([resource(1, prompt_text="ما هو المد؟", response_text="المد هو **ارتفاع** الماء.\n\n- واحد")])
    expect(alice.cards).to_have_count(1)
    directions = (
        "[...document.querySelectorAll('.prompt, .answer, .answer li')].map((each) => getComputedStyle(each).direction)"
    )
    assert alice.page.evaluate(directions) == ["rtl", "rtl", "rtl"]
    alice.prompt_field.fill("ما هو المد؟")
    assert alice.page.evaluate("getComputedStyle(document.getElementById('prompt-text')).direction") == "rtl"
