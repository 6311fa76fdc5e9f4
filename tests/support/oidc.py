"""A real OpenID provider (npm's oidc-provider), and a user who signs in there."""

import html
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx

from tests.support import npm, watchdog
from tests.support.processes import free_port
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, wait_until

FOLDER = ROOT / "tests" / "oidc"
CALLBACK = "/auth/oidc/callback/"


@contextmanager
def provider() -> Iterator[str]:
    """Run the provider of `tests/oidc/provider.mjs`. Yields its issuer."""
    packages = npm.install(FOLDER)
    issuer = f"http://127.0.0.1:{free_port()}"
    with TemporaryDirectory() as folder:
        shutil.copy(FOLDER / "provider.mjs", folder)
        Path(folder, "node_modules").symlink_to(packages)
        running = subprocess.Popen(
            [npm.node(), "provider.mjs"],
            cwd=folder,
            env=os.environ | {"ISSUER": issuer, "NODE_ENV": "production"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        watchdog.watch(running.pid)
        try:
            wait_until(lambda: _answers(issuer), what="the identity provider starting")
            yield issuer
        finally:
            running.kill()
            running.wait(MAX_WAIT_SECONDS)


def _answers(issuer: str) -> bool:
    try:
        return httpx.get(f"{issuer}/.well-known/openid-configuration").status_code == 200
    except httpx.TransportError:
        return False


class ProviderUser:
    """A user in a browser of their own, which keeps the provider's cookies."""

    def __init__(self, name: str) -> None:
        self._name = name
        # Connections are not kept, so there is nothing to close.
        self._browser = httpx.Client(timeout=MAX_WAIT_SECONDS, limits=httpx.Limits(max_keepalive_connections=0))
        self.logins = 0  #: how often the provider has asked for the password

    def sign_in(self, url: str) -> dict[str, str]:
        """Sign in at the provider's page, and consent. Returns the query of the address to which it sends the browser.

        Args:
            url: Where the API has sent the browser.
        """
        response = self._browser.get(url)
        for _ in range(10):
            if response.is_redirect:
                target = urljoin(str(response.url), response.headers["Location"])
                if urlsplit(target).path == CALLBACK:
                    return {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
                response = self._browser.get(target)
            else:
                response = self._submit(response)
        raise AssertionError(response.text)

    def cancel(self, url: str) -> dict[str, str]:
        """Go to the provider's page, and cancel there."""
        page = self._browser.get(url, follow_redirects=True)
        link = re.search(r'href="([^"]+/abort)"', page.text)
        assert link is not None, page.text
        response = self._browser.get(urljoin(str(page.url), html.unescape(link[1])))
        while urlsplit(target := urljoin(str(response.url), response.headers["Location"])).path != CALLBACK:
            response = self._browser.get(target)
        return {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}

    def _submit(self, page: httpx.Response) -> httpx.Response:
        action = re.search(r'action="([^"]+)"', page.text)
        prompt = re.search(r'name="prompt" value="(\w+)"', page.text)
        assert action is not None, page.text
        assert prompt is not None, page.text
        fields = {"prompt": prompt[1]}
        if prompt[1] == "login":
            self.logins += 1
            fields |= {"login": self._name, "password": "any"}
        return self._browser.post(urljoin(str(page.url), html.unescape(action[1])), data=fields)
