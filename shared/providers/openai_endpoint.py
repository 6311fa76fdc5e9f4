"""Connects to endpoints that implement OpenAI's API, more or less."""

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any
from weakref import finalize

import httpx

from shared.providers.client_pool import ClientPool
from shared.providers.interruptible_transport import InterruptibleStream, StaleConnectionError
from shared.providers.json_events import MalformedStreamError, parse_json
from shared.providers.openai_errors import CONNECT_SECONDS, EndpointFailures, unexpected_response
from shared.providers.openai_parameters import find_dialect, refused_parameter
from shared.settings import SettingsError

MAX_BODY_BYTES = 64 * 1024 * 1024  # of a response that is not streamed: 256 vectors of 12,000 numbers, written out
_MAX_ERROR_BYTES = 64 * 1024
REST_SECONDS = 10.0  # for what follows the end of an answer, until the response ends, too
_LAST_BYTES_SECONDS, _LAST_CHUNKS = 0.05, 3  # for the end of a response whose content has come

_OPENAI = "api.openai.com"
_SECRET_NAMES = re.compile("key|token|secret|sig|password", re.IGNORECASE)  # of parameters in a URL


class Endpoint:
    """One endpoint, for any number of threads.

    User and password in the URL are sent as basic authentication, instead of the key. A query in it (`?api-version=…`)
    is sent with each request.

    Args:
        api_key: May be empty for servers that need none, such as Ollama.
        timeout_seconds: How long the server may send nothing.
        settings_prefix: Names the settings in error messages: `…_BASE_URL` and `…_API_KEY`.
        timeout_setting: Names the setting of the timeout.

    Raises:
        SettingsError: the URL is not valid, or the key is missing for OpenAI's own endpoint.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout_seconds: float,
        settings_prefix: str = "OPENAI",
        timeout_setting: str = "OPENAI_TIMEOUT_SECONDS",
    ) -> None:
        key = _checked_key(f"{settings_prefix}_API_KEY", api_key.strip())
        given = _checked_url(f"{settings_prefix}_BASE_URL", base_url.strip())
        self._url = given.copy_with(userinfo=b"", fragment=None)
        self._urls: dict[str, httpx.URL] = {}
        #: Its URL, without user and password.
        self.url = str(self._url).rstrip("/")
        #: Its scheme, host and port, for messages.
        self.address = f"{given.scheme}://{given.netloc.decode()}"
        #: Whether it is OpenAI's own, whose API differs slightly from all others.
        self.is_openai = given.host == _OPENAI or given.host.endswith(f".{_OPENAI}")
        if self.is_openai and not key:
            raise SettingsError(f"{settings_prefix}_API_KEY is not set. Set it to your key for {given.host}.")
        basic = _basic(given) if given.userinfo else ""
        authorization = basic or (f"Bearer {key}" if key else "")
        in_query = [value for name, value in given.params.multi_items() if _SECRET_NAMES.search(name)]
        secrets = (key, given.password, basic.removeprefix("Basic "), *in_query)
        self.failures = EndpointFailures(
            self.address,
            settings_prefix,
            timeout_setting,
            timeout_seconds,
            tuple(each for each in secrets if len(each) > 3),
        )
        headers = {"Accept": "application/json", "User-Agent": "promptwire"}
        self._clients = ClientPool(
            headers=headers | ({"Authorization": authorization} if authorization else {}),
            timeout=httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS, pool=None),
            follow_redirects=True,
        )
        finalize(self, self._clients.close)  # no connection stays open when the endpoint is dropped

    @contextmanager
    def stream(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """POST a body as JSON, and give the response, whose status is 2xx, while it arrives.

        Parameters that the server refuses are left out or renamed, now and in the next requests for this model.

        Raises:
            ProviderError: the server refused the request.
            httpx.HTTPError: there is no response; `errors` translates it.
        """
        dialect = find_dialect(self.url, path, str(body.get("model")))
        changes = dialect.changes
        with self._clients.client() as client:
            while True:
                with closing(self._send(client, "POST", path, changes.applied(body), headers)) as response:
                    if response.is_success:
                        dialect.learn(changes)
                        yield response
                        return
                    payload = _error_of(response)
                learned = changes.after_refusal(response.status_code, payload, body)
                if learned is None:
                    raise self.failures.from_status(
                        response.status_code,
                        payload,
                        response.headers,
                        refused_parameter(response.status_code, payload, body),
                    )
                changes = learned

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST a body as JSON, and return the JSON of the response. Raises ProviderError."""
        with self.errors(), self.stream(path, body) as response:
            return self._content(response)

    def models(self) -> list[str]:
        """Return the names of the models that the endpoint lists. Raises ProviderError."""
        with (
            self.errors(),
            self._clients.client() as client,
            closing(self._send(client, "GET", "models")) as response,
        ):
            if not response.is_success:
                raise self.failures.from_status(response.status_code, _error_of(response), response.headers)
            listed = self._content(response)
            if isinstance(listed, dict):
                listed = listed.get("data", listed.get("models"))
            if not isinstance(listed, list):
                raise unexpected_response()
            names = (each if isinstance(each, str) else _name(each) for each in listed)
            return [name for name in names if name]

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translate exceptions of the transport and the reader into `ProviderError`s, which contain no secrets."""
        try:
            yield
        except httpx.HTTPError as error:
            raise self.failures.from_connection(error) from None
        except MalformedStreamError as error:
            raise unexpected_response(f"it {error}") from None

    @staticmethod
    def chunks(response: httpx.Response) -> Iterator[bytes]:
        """Return the bytes of the body as they arrive, decompressed if necessary."""
        is_plain = response.headers.get("content-encoding", "identity") == "identity"
        return iter(response.stream) if is_plain else response.iter_bytes()  # type: ignore[arg-type]

    @staticmethod
    def limit_rest(response: httpx.Response, *, is_limited: bool) -> None:
        """Let the rest of a response take at most REST_SECONDS from now on, or as long as usual."""
        if (stream := _network_stream(response)) is not None:
            stream.end_within(REST_SECONDS if is_limited else None)

    def finish(self, response: httpx.Response, chunks: Iterator[bytes]) -> None:
        """Read the rest of a response if it comes at once, so that its connection can be used again."""
        if (stream := _network_stream(response)) is not None:
            with stream.waiting_at_most(_LAST_BYTES_SECONDS), suppress(httpx.HTTPError):
                for _ in zip(range(_LAST_CHUNKS), chunks, strict=False):
                    pass

    def _send(
        self,
        client: httpx.Client,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a request, and if the server does not know its path, to `/v1` where that is missing."""
        prefix = _prefixes.get(self.url, "")
        response = self._send_to(client, method, f"{prefix}{path}", body, headers)
        if response.status_code != 404 or prefix or re.search(r"/v\d", self._url.path):
            return response
        with closing(response):
            payload = _error_of(response)
        response = self._send_to(client, method, f"v1/{path}", body, headers)
        if response.status_code != 404:
            _prefixes[self.url] = "v1/"
            return response
        with closing(response):
            raise self.failures.from_status(404, payload, response.headers)

    def _send_to(
        self,
        client: httpx.Client,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
    ) -> httpx.Response:
        """Send a request, and once more if it met a kept-alive connection that the server had just closed."""
        request = client.build_request(method, self._url_of(path), json=body, headers=headers)
        try:
            response = client.send(request, stream=True)
        except httpx.ReadError as error:
            if not isinstance(error.__cause__, StaleConnectionError):
                raise
            response = client.send(request, stream=True)
        if response.request.method != method:  # as browsers do after 301, 302 and 303
            with closing(response):
                raise self.failures.from_redirect(response.url)
        return response

    def _url_of(self, path: str) -> httpx.URL:
        """Return the URL of a path. Making one takes 0.1 ms, so it is kept."""
        if path not in self._urls:
            self._urls[path] = self._url.copy_with(path=f"{self._url.path.rstrip('/')}/{path}")
        return self._urls[path]

    def _content(self, response: httpx.Response) -> Any:
        """Return the JSON of a response, judged if it is an error in spite of its status."""
        payload = parse_json(_read(response, MAX_BODY_BYTES))
        if payload is None:
            raise unexpected_response()
        if isinstance(payload, dict) and (payload.get("error") or payload.get("object") == "error"):
            raise self.failures.from_answer(payload, response.headers)
        return payload


#: By URL, the prefix of the paths of endpoints whose URL lacks it, as far as this process has learned it.
_prefixes: dict[str, str] = {}


def _network_stream(response: httpx.Response) -> InterruptibleStream | None:
    """Return the connection of a response, unless it is not one of ours."""
    stream = response.extensions.get("network_stream")
    return stream if isinstance(stream, InterruptibleStream) else None


def _read(response: httpx.Response, at_most: int) -> bytes:
    """Read the body, or its beginning."""
    parts, size = [], 0
    for part in response.iter_bytes():
        parts.append(part)
        size += len(part)
        if size >= at_most:
            break
    return b"".join(parts)


def _error_of(response: httpx.Response) -> Any:
    """Return the JSON or the text of a response that is an error."""
    content = _read(response, _MAX_ERROR_BYTES)
    payload = parse_json(content.removeprefix(b"data:"))
    return content.decode(errors="replace") if payload is None else payload


def _name(model: Any) -> str:
    if not isinstance(model, dict):
        return ""
    return next((name for key in ("id", "name", "model") if isinstance(name := model.get(key), str)), "")


def _checked_key(setting: str, key: str) -> str:
    if not key.isascii() or not key.isprintable():
        raise SettingsError(f"{setting} contains characters that are not allowed in a key. Copy it again.")
    return key


def _checked_url(setting: str, text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsError(f"{setting} is not a valid URL. Write it like https://api.openai.com/v1.")
    return url.copy_with(path=url.path.removesuffix("/").removesuffix("/chat/completions") or "/")


def _basic(url: httpx.URL) -> str:
    return "Basic " + b64encode(f"{url.username}:{url.password}".encode()).decode()
