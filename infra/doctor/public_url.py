"""Check of the public URL: the page, requests and sockets work there, through all proxies."""

import json
import re
from collections.abc import Iterator
from http import HTTPStatus
from urllib.parse import urljoin

import httpx
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect
from websockets.typing import Origin

from infra.doctor import Finding, NotCheckedError, Severity
from shared.settings import Settings
from shared.settings.public_url import PublicUrl, parse_public_url

TIMEOUT_SECONDS = 5.0
_GUIDE = "docs/deployment.md, Behind a proxy"
_SAME_SETTINGS = "Start the API with this PUBLIC_URL"
_HANDSHAKE_REFUSALS: dict[int, str] = {
    HTTPStatus.BAD_REQUEST: "the handshake arrives incomplete, or names a host that is not allowed",
    HTTPStatus.NOT_FOUND: "the proxy does not send this path to the API",
    HTTPStatus.UPGRADE_REQUIRED: "the proxy removes Upgrade",
}


class _BrokenError(Exception):
    """What clients get is wrong, so that nothing else can be checked."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.finding = Finding(problem, remedy)


def public_url(settings: Settings) -> Iterator[Finding]:
    """HTTP and WebSockets work at the public URL, for clients and for browsers."""
    is_production = settings.app_env == "prod"
    if not settings.public_url:
        if not is_production or settings.allowed_hosts:
            raise NotCheckedError("PUBLIC_URL is not set: the address at which clients reach the API")
        yield Finding(
            "PUBLIC_URL is not set: only requests to localhost are answered, any other host gets 400.",
            "Set PUBLIC_URL to the address at which clients reach the API.",
            Severity.BEWARE,
        )
        return
    url = parse_public_url(settings.public_url)
    if is_production and url.scheme != "https":
        yield Finding(
            f"PUBLIC_URL is {url}: tokens travel unencrypted.",
            "Terminate TLS in front of the API, and use an https URL.",
        )
    try:
        _check_api(url)
        page = _check_page(url)
        _check_sockets(url)
        published = [path for path in ("/metrics", "/readyz") if is_production and _is_ours(_get(f"{url}{path}"))]
    except _BrokenError as error:
        yield error.finding
        return
    if url.scheme == "https" and "Strict-Transport-Security" not in page.headers:
        yield Finding(
            f"{url} does not tell browsers to use HTTPS only.",
            f"{_SAME_SETTINGS}, and let the proxy keep Strict-Transport-Security.",
            Severity.BEWARE,
        )
    for path in published:
        yield Finding(
            f"{url}{path} is public; it is meant for operators.",
            f"Have the proxy answer {path} with 404 ({_GUIDE}).",
            Severity.BEWARE,
        )


def _check_api(url: PublicUrl) -> None:
    """The public URL leads to an API."""
    response = _get(f"{url}/livez/")
    if response.status_code == HTTPStatus.NOT_FOUND and url.prefix:
        raise _BrokenError(
            f"{url}/livez/ answers 404: the API is not below {url.prefix}.",
            f"{_SAME_SETTINGS}, and have the proxy send all paths below {url.prefix} to it ({_GUIDE}).",
        )
    if response.status_code != HTTPStatus.OK:
        raise _BrokenError(
            f"{url}/livez/ answers {response.status_code}, not 200.",
            "Check the proxies between the clients and the API.",
        )
    if not _is_ours(response):
        raise _BrokenError(
            f"{url}/livez/ is not answered by Promptwire.", f"Check PUBLIC_URL and the proxy ({_GUIDE})."
        )


def _check_page(url: PublicUrl) -> httpx.Response:
    """The page and its first script load. Returns the page."""
    page = _get(f"{url}/")
    if page.status_code == HTTPStatus.BAD_REQUEST:
        raise _BrokenError(
            f"{url}/ answers 400: the API does not allow the host that the proxy sends.",
            f"{_SAME_SETTINGS}, or add the host to ALLOWED_HOSTS; the API's log names it (host refused).",
        )
    script = re.search(r'<script type="module" src="([^"]+)"', page.text)
    if page.status_code != HTTPStatus.OK or script is None:
        raise _BrokenError(f"{url}/ does not show the page ({page.status_code}).", f"Check the proxy ({_GUIDE}).")
    address = urljoin(f"{url}/", script[1])
    response = _get(address)
    if response.status_code != HTTPStatus.OK or not response.headers.get("Content-Type", "").startswith("text/java"):
        raise _BrokenError(
            f"{address} is not the page's script ({response.status_code}).",
            f"Have the proxy send all paths below {url}/ to the API ({_GUIDE}).",
        )
    return page


def _check_sockets(url: PublicUrl) -> None:
    """Join the room without a name, as a page would. The API refuses it with a message, over a working WebSocket."""
    address = str(url).replace("http", "ws", 1) + "/ws/prompts/"
    remedy = f"Let the proxy forward Upgrade and Connection, with HTTP/1.1 ({_GUIDE})."
    try:
        with connect(address, origin=Origin(url.origin), open_timeout=TIMEOUT_SECONDS) as socket:
            answer = json.loads(socket.recv(timeout=TIMEOUT_SECONDS))
    except InvalidStatus as error:
        status = error.response.status_code
        if status == HTTPStatus.FORBIDDEN:
            remedy = f"{_SAME_SETTINGS}, or add {url.origin} to ALLOWED_ORIGINS. If it is set, check the proxy."
            raise _BrokenError(
                f"{address} answers 403: pages of {url.origin} may not open WebSockets.", remedy
            ) from error
        reason = _HANDSHAKE_REFUSALS.get(status, "no WebSocket")
        raise _BrokenError(f"WebSockets do not work: {address} answers {status}: {reason}.", remedy) from error
    except (WebSocketException, OSError, TimeoutError, ValueError) as error:
        raise _BrokenError(f"WebSockets do not work at {address}: {error or type(error).__name__}.", remedy) from error
    if "error" not in answer:
        raise _BrokenError(f"The WebSocket at {address} is not answered by Promptwire.", remedy)


def _get(address: str) -> httpx.Response:
    try:
        return httpx.get(address, timeout=TIMEOUT_SECONDS)
    except httpx.HTTPError as error:
        problem = f"{address} cannot be reached: {error or type(error).__name__}."
        raise _BrokenError(problem, "Check that the API runs and that PUBLIC_URL is right.") from error


def _is_ours(response: httpx.Response) -> bool:
    """Whether the API answers there: with its health, its metrics, or its refusal to show these."""
    try:
        body = response.json()
    except ValueError:
        return "promptwire_" in response.text
    if not isinstance(body, dict) or response.status_code == HTTPStatus.NOT_FOUND:
        return False
    return body.keys() >= {"status", "version"} or body.keys() >= {"type", "title", "status", "detail"}
