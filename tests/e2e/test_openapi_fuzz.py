"""The API against its own description: schemathesis generates requests, single and in sequences."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from shared.accounts import users
from shared.db.engine import make_engine, make_sessions
from shared.settings import Settings
from tests.support import processes
from tests.support.processes import RemoteUser

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
#: It takes half a minute of computing, and more than ten times that on a busy machine.
MAX_SECONDS = 800


@pytest.fixture
def worker(settings: Settings) -> Iterator[None]:
    """A worker: prompts must finish, or requests that follow their text would never end."""
    with processes.worker(settings):
        yield


@pytest.mark.usefixtures("worker")
def test_every_response_is_as_described(url: str, settings: Settings, tmp_path: Path) -> None:
    alice = RemoteUser(url)
    with make_sessions(make_engine(settings, application_name="test")).begin() as session:
        users.set_roles(users.find_existing(session, alice.username), is_admin=True)
    alice.wait(alice.submit())
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "run"]
    token = f"Authorization: {alice.http.headers['Authorization']}"
    result = subprocess.run(
        [*command, f"{url}/openapi.json", "--header", token],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=MAX_SECONDS,
    )
    assert result.returncode == 0, result.stdout + result.stderr


class TestDocs:
    @pytest.mark.parametrize("path", ["/docs", "/docs/"])
    def test_the_page_and_all_its_parts_come_from_this_server(self, url: str, path: str) -> None:
        page = httpx.get(url + path)
        assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "//" not in page.text.removeprefix("<!doctype html>")
        for part in ("swagger-ui.js", "swagger-ui.css", "start.js", "style.css"):
            assert f'"{"./" if path.endswith("/") else "docs/"}{part}"' in page.text
            assert httpx.get(f"{url}/docs/{part}").status_code == 200

    def test_the_policy_allows_only_its_own_scripts(self, url: str) -> None:
        policy = httpx.get(f"{url}/docs").headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy

    def test_a_browser_caches_the_parts_and_revalidates_them(self, url: str) -> None:
        first = httpx.get(f"{url}/docs/swagger-ui.js")
        again = httpx.get(f"{url}/docs/swagger-ui.js", headers={"If-None-Match": first.headers["ETag"]})
        assert first.headers["Cache-Control"] == "no-cache"
        assert (again.status_code, again.content) == (304, b"")

    def test_other_paths_below_docs_are_404(self, url: str) -> None:
        for path in ("/docs/index.html", "/docs/..%2fdocument.py", "/docs/document.py"):
            assert httpx.get(url + path).status_code == 404
