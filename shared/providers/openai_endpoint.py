"""Connects to endpoints that implement OpenAI's API, and translates their failures into errors of ours."""

import math
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from weakref import finalize

import httpx2
import openai

from shared.errors import ProviderError, ProviderUnavailableError
from shared.settings import SettingsError

CONNECT_SECONDS = 5
MAX_RETRY_AFTER_SECONDS = 24 * 60 * 60
MAX_QUOTED = 500  # characters of a provider's message

_OPENAI = "api.openai.com"
_OVERLOADED_STATUSES = (429, 502, 503, 529)
_TRANSIENT_STATUSES = (408, 409, 425)
# Keys, and masked keys with stars, which some providers repeat in their messages.
_SECRETS = re.compile(r"bearer\s+\S+|\b\w?sk[-_]\S+|\S*\*{3}\S*", re.IGNORECASE)


class Endpoint:
    """One endpoint. Use `client` within `errors()`.

    User and password in the URL are sent as basic authentication, instead of the key.

    Args:
        api_key: May be empty for servers that need none, such as Ollama.
        timeout_seconds: How long the server may send nothing.
        settings_prefix: Names the settings in error messages: `…_BASE_URL` and `…_API_KEY`.

    Raises:
        SettingsError: the URL is not valid, or the key is missing for OpenAI's own endpoint.
    """

    def __init__(self, base_url: str, api_key: str, *, timeout_seconds: float, settings_prefix: str = "OPENAI") -> None:
        self._key_setting = f"{settings_prefix}_API_KEY"
        self._key = self._checked_key(api_key.strip())
        given = _checked_url(f"{settings_prefix}_BASE_URL", base_url.strip())
        #: Its URL, without user and password.
        self.url = str(given.copy_with(userinfo=b"")).rstrip("/")
        #: Whether it is OpenAI's own, whose API differs slightly from all others.
        self.is_openai = given.host == _OPENAI or given.host.endswith(f".{_OPENAI}")
        if self.is_openai and not self._key:
            raise SettingsError(f"{self._key_setting} is not set. Set it to your key for {given.host}.")
        self.client = openai.OpenAI(
            base_url=self.url,
            api_key=self._key or "none",  # the library requires one
            default_headers={"Authorization": _basic(given)} if given.userinfo else None,
            max_retries=0,  # a prompt waits for its next attempt in the database, not in a worker
            timeout=httpx2.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
        )
        finalize(self, self.client.close)  # no connection stays open when the endpoint is dropped

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translate the library's exceptions into errors of ours, which contain no secrets."""
        try:
            yield
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            raise self._failure(error) from None
        except (ValueError, TypeError, AttributeError):  # the library does not validate responses
            raise ProviderError("The provider's response does not follow OpenAI's API.") from None

    def _checked_key(self, key: str) -> str:
        if not key.isascii() or not key.isprintable():
            raise SettingsError(
                f"{self._key_setting} contains characters that are not allowed in a key. Copy it again."
            )
        return key

    def _failure(self, error: Exception) -> ProviderError:
        if isinstance(error, openai.APIStatusError):
            return self._refusal(error)
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
        if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
            return ProviderUnavailableError("The provider could not be reached.")
        if isinstance(cause, httpx2.TimeoutException):
            return ProviderError("The provider sent nothing for too long.")
        if isinstance(error, openai.APIError) and not isinstance(error, openai.APIConnectionError):
            return ProviderError(self._quoting("The provider interrupted its answer", error))
        return ProviderError("The connection to the provider was interrupted.")

    def _refusal(self, error: openai.APIStatusError) -> ProviderError:
        status, wait = error.status_code, retry_after(error.response.headers)
        if error.code == "insufficient_quota":
            return ProviderUnavailableError(
                f"The provider's quota is used up ({status}). The operator must check the account.", retry_after=wait
            )
        if status in _OVERLOADED_STATUSES or (status >= 500 and wait is not None):
            return ProviderUnavailableError(
                f"The provider accepts no requests at the moment ({status}).", retry_after=wait
            )
        if status >= 500 or status in _TRANSIENT_STATUSES:
            return ProviderError(f"The provider failed ({status}).")
        if status in (401, 403):
            return ProviderError(
                f"The provider refused the key ({status}). The operator must check {self._key_setting}.",
                retryable=False,
            )
        return ProviderError(self._quoting(f"The provider refused the request ({status})", error), retryable=False)

    def _quoting(self, message: str, error: openai.APIError) -> str:
        """Return the message as a sentence, with the provider's own message without secrets."""
        quoted = " ".join(_SECRETS.sub("…", _provider_message(error.body)).split())
        if self._key:
            quoted = quoted.replace(self._key, "…")
        if len(quoted) > MAX_QUOTED:
            quoted = quoted[: MAX_QUOTED - 1].rstrip() + "…"
        sentence = f"{message}: {quoted}" if quoted else message
        return sentence if sentence.endswith((".", "!", "?", "…")) else f"{sentence}."


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait before the next request, at most a day; None if the headers do not say.

    Reads `Retry-After` (RFC 9110, 10.2.3: seconds or a date) and OpenAI's `retry-after-ms`.
    """
    seconds = _number(headers.get("retry-after-ms"), 0.001)
    if seconds is None:
        seconds = _number(headers.get("retry-after"))
    if seconds is None:
        seconds = _seconds_until(headers.get("retry-after"))
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _number(text: str | None, unit: float = 1) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number * unit if math.isfinite(number) else None


def _seconds_until(date: str | None) -> float | None:
    try:
        then = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return (then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


def _provider_message(body: object) -> str:
    """Return the provider's message from an error's body, in the known shapes. HTML pages of proxies are ignored."""
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail")
    return body if isinstance(body, str) and not body.lstrip().startswith("<") else ""


def _checked_url(setting: str, text: str) -> httpx2.URL:
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        url = httpx2.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsError(f"{setting} is not a valid URL. Write it like https://api.openai.com/v1.")
    return url


def _basic(url: httpx2.URL) -> str:
    return "Basic " + b64encode(f"{url.username}:{url.password}".encode()).decode()
