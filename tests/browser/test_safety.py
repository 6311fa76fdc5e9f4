"""Texts with markup and scripts in them, of which nothing may run or load."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.support.browser import Visitor
from tests.support.servers import ROOT

pytestmark = pytest.mark.usefixtures("gate")

ATTACKS = [
    "<img src=x onerror=\"document.title='owned'\">",
    "<script>document.title='owned'</script>",
    "<a href=\"javascript:document.title='owned'\">press</a><style>*{display:none}</style>",
    "</p></article><svg onload=\"document.title='owned'\">{{7*7}}${7*7}",
]
_INJECTED = ":is(.card, dialog, #login, .toast) :is(img, script, a:not(.permalink), style, svg)"
HOSTILE = [line.replace("\\n", "\n") for line in (ROOT / "tests/data/hostile_markdown.txt").read_text().splitlines()]

_SHOW = """async (texts) => {
    const { Cards } = await import("/static/cards.js");
    const created_at = "2026-01-01T00:00:00Z";
    // Cards of longer lists are filled when they are near.
    for (let start = 0; start < texts.length; start += 50) {
        const list = document.getElementById("prompts").cloneNode();
        document.getElementById("all").append(list);
        const cards = new Cards(list, () => {});
        texts.slice(start, start + 50).forEach((text, index) => {
            cards.put({ id: start + index, prompt_text: text, response_text: text, status: "completed", created_at });
        });
    }
}"""
_SANITIZE = """async (texts) => {
    const { sanitize } = await import("/static/markdown.js");
    for (const text of texts) {
        const answer = document.createElement("div");
        answer.className = "answer";
        answer.append(sanitize(text));
        document.getElementById("all").append(answer);
    }
}"""
_TOUCH = """() => document.querySelectorAll("#all *").forEach((element) => {
    for (const type of ["focus", "mouseover", "pointerenter", "animationstart", "toggle", "error", "load"]) {
        element.dispatchEvent(new Event(type));
    }
})"""
_INSPECT = """() => {
    const answers = [...document.querySelectorAll("#all .answer")];
    const elements = answers.flatMap((answer) => [...answer.querySelectorAll("*")]);
    return {
        owned: window.owned ?? null,
        shown: answers.map(({ textContent }) => textContent),
        tags: [...new Set(elements.map(({ localName }) => localName))],
        attributes: [...new Set(elements.flatMap((element) => element.getAttributeNames()))],
        classes: [...new Set(elements.flatMap(({ classList }) => [...classList]))],
        links: elements.filter(({ localName, rel }) => localName === "a" && rel).map((link) => ({
            text: link.textContent, href: link.href, host: link.host, rel: link.rel, target: link.target,
            isReversed: link.textContent.startsWith("http") && isReversed(link.firstChild),
        })),
    };

    /** Whether the second character of a text is at the left of the first one. */
    function isReversed(node) {
        const [first, second] = [0, 1].map((index) => {
            const range = document.createRange();
            range.setStart(node, index);
            range.setEnd(node, index + 1);
            return range.getBoundingClientRect();
        });
        return second.left < first.left && second.top === first.top;
    }
}"""
_TAGS = {"a", "blockquote", "br", "button", "code", "del", "div", "em", "h3", "hr", "li", "ol", "p", "pre", "span"}
_TAGS |= {"strong", "table", "tbody", "td", "th", "thead", "tr", "ul"}
_ATTRIBUTES = {
    "align",
    "aria-label",
    "class",
    "data-copy",
    "href",
    "rel",
    "role",
    "start",
    "tabindex",
    "target",
    "type",
}
_RENDERED = r"hljs-|language-|level-|(function|class|inherited|language)_$"
_OWN_CLASSES = {"code", "copy", "host", "quiet", "table", "wide"}


def assert_unharmed(visitor: Visitor) -> None:
    assert visitor.page.locator(_INJECTED).count() == 0
    assert visitor.page.title() == "Promptwire"


def test_a_prompt_and_its_answer_are_shown_as_text(alice: Visitor) -> None:
    for attack in ATTACKS:
        card = alice.submit(attack)
        alice.expect_status(card, "Answered")
        expect(card.locator(".prompt")).to_have_text(attack)
        # The simulated answer quotes it, as Markdown, in which * is no character.
        expect(alice.answer(card)).to_contain_text(attack.replace("7*7}}${7*7", "77}}${77"))
        found = alice.search(attack).filter(has_text=attack)
        expect(found).to_have_count(1)
        alice.press(found, "Delete")
        expect(alice.page.get_by_role("dialog")).to_contain_text(attack)
        assert_unharmed(alice)
        alice.page.keyboard.press("Escape")


def test_nothing_of_hostile_markdown_runs_or_loads_or_looks_like_the_page(alice: Visitor, url: str) -> None:
    assert len(HOSTILE) >= 100
    requests: list[str] = []
    alice.page.on("request", lambda request: requests.append(request.url))
    alice.page.evaluate(_SHOW, HOSTILE)
    expect(alice.page.locator(".hljs-keyword, .hljs-tag").first).to_be_attached()
    alice.page.evaluate(_TOUCH)
    found = alice.page.evaluate(_INSPECT)
    assert alice.complaints == []
    assert len(found["shown"]) == len(HOSTILE)
    assert "<script>window.owned = 1</script>" in map(str.strip, found["shown"])
    assert found["owned"] is None
    assert set(found["tags"]) <= _TAGS
    assert set(found["attributes"]) <= _ATTRIBUTES
    assert {name for name in found["classes"] if not re.match(_RENDERED, name)} == _OWN_CLASSES
    assert found["links"]
    for link in found["links"]:
        assert link["href"].startswith(("https:", "http:", "mailto:"))
        assert "noopener" in link["rel"]
        assert link["target"] == "_blank"
        is_plain = not re.search("[\u202a-\u202e\u2066-\u2069]", link["text"])
        is_named = is_plain and re.match(rf"https?://{re.escape(link['host'])}(/|$)", link["text"])
        assert is_named or link["text"].endswith(f" ({link['host']})"), link
        assert not link["isReversed"], link

    # What if the parser let HTML through? (While it is sanitized, the policy already blocks inline code and <base>.)
    alice.page.evaluate(_SANITIZE, HOSTILE)
    alice.page.evaluate(_TOUCH)
    found = alice.page.evaluate(_INSPECT)
    assert found["owned"] is None
    assert set(found["tags"]) <= _TAGS
    assert set(found["attributes"]) <= _ATTRIBUTES
    assert {name for name in found["classes"] if not re.match(_RENDERED, name)} == _OWN_CLASSES
    assert alice.page.title() == "Promptwire"
    assert [each for each in requests if not re.match(f"{re.escape(url)}/(static|prompts)/", each)] == []
    assert [complaint for complaint in alice.complaints if not re.search("inline|base URI", complaint)] == []
    alice.complaints.clear()


def test_markdown_becomes_elements_and_its_code_can_be_copied(alice: Visitor) -> None:
    text = "# Tides\n\n**twice** a day\n\n| a | b |\n| - | -: |\n| 1 | 2 |\n\n- [x] moon\n"
    text += "\n```python\ndef tide(): ...\n```\n"
    text += "\n[read](https://example.org/tides) or https://example.org/moon\n\n![moon](https://example.org/moon.png)"
    alice.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    endless = "```csharp\n" + "aa<b>\n" * 3_000 + "```"  # whose colours would take minutes
    alice.page.evaluate(_SHOW, [endless, text])
    assert alice.page.locator("#all .answer code").last.inner_text().startswith("aa<b>\naa<b>")
    answer = alice.page.locator("#all .answer").first
    expect(answer.get_by_role("heading", name="Tides")).to_be_visible()
    expect(answer.locator("strong")).to_have_text("twice")
    expect(answer.get_by_role("cell", name="2")).to_be_visible()
    expect(answer.get_by_role("listitem")).to_have_text("☑ moon")
    expect(answer.locator(".hljs-keyword")).to_have_text("def")
    expect(answer.get_by_role("link")).to_have_text(
        ["read (example.org)", "https://example.org/moon", "moon (example.org)"]
    )
    answer.get_by_role("button", name="Copy the code").click()
    expect(answer.get_by_role("button")).to_have_text("Copied")
    assert alice.page.evaluate("navigator.clipboard.readText()") == "def tide(): ..."
    times = alice.page.evaluate(
        """async (texts) => {
            const { render } = await import("/static/markdown.js");
            return texts.map((text) => {
                const started = performance.now();
                const isText = render(text) === null;
                return [isText, performance.now() - started];
            });
        }""",
        ["_a_" * 30_000, ">" * 5_000, "x" * 100_001, "[" * 50_000, "word " * 10_000],
    )
    assert [is_text for is_text, _ in times] == [True, True, True, False, False]


def test_a_username_is_shown_as_text(visit: Callable[..., Visitor], url: str) -> None:
    mallory = visit(url)
    mallory.refusals |= {400, 401}
    for attack in ATTACKS:
        for button in ("Register", "Log in"):
            mallory.enter(button, attack)
            expect(mallory.page.get_by_role("alert").first).not_to_be_empty()
            expect(mallory.page.get_by_role("button", name="Log in")).to_be_enabled()
            assert_unharmed(mallory)


def test_the_browser_blocks_what_the_policy_forbids(alice: Visitor) -> None:
    """Also checks that these tests would notice a violation."""
    alice.page.evaluate(
        """() => {
            const image = document.createElement("img");
            image.src = "data:image/gif;base64,R0lGODlhAQABAAAAACw=";
            document.body.append(image);
        }"""
    )
    message = "() => { try { document.body.innerHTML = '<b>'; } catch (error) { return error.message; } }"
    assert "TrustedHTML" in alice.page.evaluate(message)
    expect(alice.page.get_by_role("banner")).to_be_visible()
    for violated in ("img-src", "TrustedHTML"):
        assert any(violated in complaint for complaint in alice.complaints)
    alice.complaints.clear()
