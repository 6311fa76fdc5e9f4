"""The JavaScript snippets of `docs/api.md`, run unchanged by a page of another origin."""

import re

from playwright.sync_api import Browser

from tests.support.browser import Gate
from tests.support.client import PASSWORD
from tests.support.processes import RemoteUser
from tests.support.servers import ROOT, wait_until

SNIPPETS = re.findall(r"```js\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL)


def test_a_page_of_another_origin_submits_streams_and_listens(
    browser: Browser, url: str, origin: str, gate: Gate
) -> None:
    alice = RemoteUser(url, "alice")
    module = "\n".join(SNIPPETS).replace("http://127.0.0.1:8000", url).replace("the password", PASSWORD)
    logged: list[str] = []
    complaints: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: logged.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(origin)

    def has_logged(beginning: str) -> bool:
        page.wait_for_timeout(50)  # lets playwright deliver console messages
        return complaints != [] or any(line.startswith(beginning) for line in logged)

    with gate.closed():
        page.add_script_tag(type="module", content=module)
        wait_until(lambda: has_logged("so far: "), 30, "the beginning of the answer over the stream")
    wait_until(lambda: has_logged("2 "), 30, "the second answer over the socket")
    page.close()
    assert complaints == []
    pushed, streamed = (prompt["response_text"] for prompt in alice.http.get("/prompts/").json())
    *growing, ended, last = logged
    texts = [line.removeprefix("so far: ") for line in growing]
    assert len(texts) > 1
    assert all(later.startswith(earlier) for earlier, later in zip(texts, [*texts[1:], streamed], strict=True))
    assert texts[-1] == streamed
    assert (ended, last) == (f"completed {streamed}", f"2 {pushed}")
