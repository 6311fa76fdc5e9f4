"""The TypeScript client in Node and in Chromium: the same tests against the real stack, and kill -9."""

import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from playwright.sync_api import Browser, expect

from tests.support import npm, processes, typescript
from tests.support.client import PASSWORD
from tests.support.processes import API, RemoteUser, free_port
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, Servers, wait_until

GUIDE = ROOT / "docs" / "typescript.md"

SUITES = ["accounts", "prompts", "events"]

COUNT_IN_STORE = """async () => {
    const increment = async () => tokenStore.write(((await tokenStore.read()) ?? 0) + 1);
    for (let times = 0; times < 200; times += 1) await tokenStore.locked(increment);
}"""


class Stack(NamedTuple):
    """The addresses of the API and of the server of the test, and the folder of the compiled tests."""

    url: str
    control: str
    modules: Path


@pytest.fixture(scope="module")
def stack(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    port, modules = free_port(), tmp_path_factory.mktemp("modules")
    url = f"http://127.0.0.1:{port}"

    def kill() -> None:
        """kill -9 the processes of the API. Gunicorn starts others."""
        for child in psutil.Process(api.pid).children(recursive=True):
            child.send_signal(signal.SIGKILL)

    with ExitStack() as running:
        control = running.enter_context(typescript.control_server(modules, tmp_path_factory.mktemp("answers"), kill))
        settings = servers.settings(
            running.enter_context(servers.database()),
            generator="tests.support.providers:capable",
            allowed_origins=(control,),
            max_page_bytes=1024,
            max_attempts=1000,
            reaper_seconds=0.2,
            retry_backoff_seconds=0.1,
        )
        running.enter_context(processes.worker(settings, processes=4))
        api = running.enter_context(processes.process(API, settings, PORT=str(port)))
        typescript.build(modules)  # while the others start
        wait_until(lambda: processes.answers(url), what="the API starting")
        yield Stack(url, control, modules)


def in_node(stack: Stack, *suites: str) -> int:
    """Run suites in Node. Returns how many cases have passed; fails if one does."""
    command = [npm.node(), "--test-reporter=tap", "run-in-node.mjs", stack.url, stack.control, *suites]
    (passed,) = re.findall(r"^# pass (\d+)$", typescript.run(command, stack.modules), re.MULTILINE)
    return int(passed)


def in_browser(browser: Browser, stack: Stack, *suites: str) -> dict:
    """Run suites on a page. Returns how many cases have passed, and the errors of the others."""
    page = browser.new_page()
    page.goto(stack.control)
    result = page.evaluate(
        "async ([stack, suites]) => (await import('/run-in-browser.js')).run(stack, suites)",
        [{"url": stack.url, "control": stack.control}, suites],
    )
    page.close()
    return result


def test_the_package_has_compiled_modules_and_their_types(stack: Stack) -> None:
    package = stack.modules / "node_modules" / "promptwire"
    assert {path.name for path in package.iterdir()} == {"LICENSE", "README.md", "dist", "package.json"}
    sources = {path.stem for path in (typescript.CLIENT / "src").iterdir()}
    assert {path.name for path in (package / "dist").iterdir()} == {
        f"{s}{e}" for s in sources for e in (".js", ".d.ts")
    }


def test_the_client_works_in_node(stack: Stack) -> None:
    assert in_node(stack, *SUITES) >= 20


def test_the_client_works_in_a_browser(stack: Stack, browser: Browser) -> None:
    result = in_browser(browser, stack, *SUITES)
    assert result["failed"] == {}
    assert result["passed"] >= 20


def test_nothing_is_missed_and_nothing_comes_twice_in_node_although_the_api_is_killed(stack: Stack) -> None:
    assert in_node(stack, "kills") == 1


def test_nothing_is_missed_and_nothing_comes_twice_in_a_browser_although_the_api_is_killed(
    stack: Stack, browser: Browser
) -> None:
    assert in_browser(browser, stack, "kills") == {"passed": 1, "failed": {}}


def blocks(page: Path, language: str) -> list[str]:
    """The code of this language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


class TestGuide:
    """The examples of the guide, as they are pasted."""

    def test_the_session_works(self, stack: Stack) -> None:
        (session,) = blocks(GUIDE, "javascript")
        assert blocks(typescript.CLIENT / "README.md", "javascript") == [session]
        alice = RemoteUser(stack.url)
        key = alice.http.post("/auth/keys/", json={"name": "session"}).raise_for_status().json()["key"]
        (stack.modules / "session.mjs").write_text(session)
        variables = {"PROMPTWIRE_URL": stack.url, "PROMPTWIRE_API_KEY": key}
        printed = typescript.run([npm.node(), "session.mjs"], stack.modules, **variables)
        second, first = (prompt["id"] for prompt in alice.http.get("/prompts/").json())
        for line in (
            "completed done",
            "prompt.completed",
            f"1 prompt.completed {first}",
            f"2 prompt.completed {second}",
            f"{first} Explain what causes ocean tides",
        ):
            assert f"\n{line}\n" in f"\n{printed}"

    def test_the_page_shows_answers_as_they_come_and_prompts_from_elsewhere(
        self, stack: Stack, browser: Browser, tmp_path: Path
    ) -> None:
        (example,) = blocks(GUIDE, "html")
        assert example.count("\n") <= 50
        (stack.modules / "example.html").write_text(example.replace("http://127.0.0.1:8000", stack.url))
        alice = RemoteUser(stack.url)
        earlier = alice.submit("Earlier", websocket=False)
        alice.wait(earlier)
        answer = tmp_path / "answer"
        answer.write_text("Ebb ")

        page = browser.new_page()
        page.set_default_timeout(MAX_WAIT_SECONDS * 1000)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{stack.control}/example.html")
        page.get_by_label("Username").fill(alice.username)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        items = page.get_by_role("listitem")
        expect(items).to_have_text(["Earlier → done"])
        page.get_by_label("Prompt").fill(f"copy {answer}")
        page.get_by_role("button", name="Submit").click()
        expect(items).to_have_text([f"copy {answer} → Ebb ", "Earlier → done"])
        alice.submit("Elsewhere", websocket=False)
        expect(items).to_have_text(["Elsewhere → done", f"copy {answer} → Ebb ", "Earlier → done"])
        with answer.open("a") as file:
            file.write("and flow.\n")
        alice.http.delete(f"/prompts/{earlier}/").raise_for_status()
        expect(items).to_have_text(["Elsewhere → done", f"copy {answer} → Ebb and flow. done"])
        page.close()
        assert complaints == []

    def test_tabs_share_a_login(self, stack: Stack, browser: Browser) -> None:
        (snippet,) = (block for block in blocks(GUIDE, "js") if "tokenStore" in block)
        alice = RemoteUser(stack.url)
        context = browser.new_context()
        first, second = context.new_page(), context.new_page()
        requests: list[str] = []
        context.on("request", lambda request: requests.append(f"{request.method} {request.url}"))
        for page in (first, second):
            page.goto(stack.control)
            page.add_script_tag(
                type="module",
                content=f"""import {{ Client }} from "promptwire";
                {snippet}
                window.client = new Client("{stack.url}", {{ tokenStore }});
                window.tokenStore = tokenStore;""",
            )
            page.wait_for_function("window.client")
        # What one tab stores under the lock, the next one sees.
        for page in (first, second):
            page.evaluate(f"void (window.counted = ({COUNT_IN_STORE})())")
        for page in (first, second):
            page.evaluate("counted")
        assert first.evaluate("tokenStore.read()") == 2 * 200
        first.evaluate("([name, password]) => client.login(name, password)", [alice.username, PASSWORD])
        first.evaluate("(async () => tokenStore.write({ ...(await tokenStore.read()), access: 'expired' }))()")
        for page in (first, second):
            page.evaluate("void (window.calls = Promise.all([1, 2].map(() => client.request('GET', '/account/'))))")
        names = [page.evaluate("calls")[0]["username"] for page in (first, second)]
        context.close()
        assert names == [alice.username] * 2
        assert requests.count(f"POST {stack.url}/auth/refresh/") == 1
