"""Translates the failures of an endpoint into `ProviderError`s, which say why, and contain no secrets."""

import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from shared.errors import ProviderError, ProviderOverloadedError, ProviderUnavailableError
from shared.providers.interruptible_transport import ConnectFailedError
from shared.providers.openai_error_payloads import QUOTA, effective_status, find_message
from shared.retry_after import retry_after

CONNECT_SECONDS = 5
MAX_QUOTED = 500  # characters of a provider's message

_OVERLOADED_STATUSES = (429, 503, 529)
_UNAVAILABLE_STATUSES = (407, 502)
_TRANSIENT_STATUSES = (408, 409, 425)
# Keys, and masked keys with stars, which some providers repeat in their messages; keys and passwords in URLs.
_SECRETS = re.compile(
    r"""bearer\s+\S+|\b\w?sk[-_]\S+|\b(?:AIza|hf_|xai-|eyJ)[\w.-]{8,}|\S*\*{3}\S*"""
    r"""|(?<=://)[^\s/@]+(?=@)|(?<=[?&])[\w-]*(?:key|token|secret|password|signature)=[^\s&"']+""",
    re.IGNORECASE,
)


#: What servers say about a text that is too long for them, with a suitable status or 500.
_TOO_LONG = re.compile(
    r"too (?:long|large|big|many (?:input )?tokens)|context (?:length|size|window)|physical batch size|token limit"
    r"|(?:less|more|longer|larger) than \d+|exceed\w*\W.*(?:token|length|context|size|limit|input)"
    r"|(?:token|length|context|size|input)\w*\W.*exceed|max(?:imum)?\W(?:\w+\W)?(?:length|tokens|batch size)",
    re.IGNORECASE | re.DOTALL,
)


class InputTooLongError(ProviderError):
    """The provider refused a request because its text is too long."""


def unexpected_response(detail: str = "") -> ProviderError:
    """An error for a response that cannot be understood."""
    return ProviderError(f"The provider's response does not follow OpenAI's API{detail and ': '}{detail}.")


@dataclass(frozen=True)
class EndpointFailures:
    """Makes `ProviderError`s of the failures of one endpoint."""

    address: str  #: scheme, host and port
    settings_prefix: str  #: of the settings that messages name: `…_API_KEY` and `…_BASE_URL`
    timeout_setting: str
    timeout_seconds: float
    secrets: tuple[str, ...]  #: never shown

    def from_status(self, status: int, payload: Any, headers: Mapping[str, str], parameter: str = "") -> ProviderError:
        """The error of a response, by its status, and by its body where that says more.

        Args:
            parameter: The one of the request that is refused, if the body's message does not name it.
        """
        return self._judged(effective_status(status, payload), status, payload, headers, parameter)

    def from_answer(self, payload: Any, headers: Mapping[str, str]) -> ProviderError:
        """The error that came with status 200, or within an answer: as if it had the status that it describes."""
        status = effective_status(200, payload)
        if status != 200:
            return self._judged(status, status, payload, headers)
        return ProviderError(self.quoting("The provider interrupted its answer", payload))

    def from_redirect(self, to: httpx.URL) -> ProviderError:
        """An error for a redirect that turned the request into another one."""
        return ProviderError(
            f"The provider at {self.address} redirects to {to.scheme}://{to.netloc.decode()}{to.path}. "
            f"The operator must correct {self.settings_prefix}_BASE_URL.",
            retryable=False,
        )

    def from_connection(self, error: httpx.HTTPError) -> ProviderError:
        """The error of a connection that led to no response, or only to a part of one."""
        if isinstance(error, httpx.ConnectError):
            return self._unreachable(error)
        if isinstance(error, httpx.ConnectTimeout):
            return ProviderUnavailableError(f"No connection to {self.address} within {CONNECT_SECONDS} s.")
        if isinstance(error, httpx.ProxyError):
            return ProviderUnavailableError(self.quoting(f"The proxy refused to connect to {self.address}", str(error)))
        if isinstance(error, httpx.TimeoutException):
            return ProviderError(
                f"The provider sent nothing for too long: {self.timeout_seconds:g} s ({self.timeout_setting})."
            )
        if isinstance(error, httpx.DecodingError):
            return unexpected_response("it cannot be decompressed")
        return ProviderError(f"The connection to {self.address} was interrupted.")

    def quoting(self, message: str, payload: Any, then: str = "") -> str:
        """Return the message as a sentence with the provider's own words, without secrets, and another sentence."""
        words = self._without_secrets(find_message(payload))
        sentence = f"{message}: {words}" if words else message
        if not sentence.endswith((".", "!", "?", "…")):
            sentence += "."
        return f"{sentence} {then}".rstrip()

    def _judged(
        self, status: int, told: int, payload: Any, headers: Mapping[str, str], parameter: str = ""
    ) -> ProviderError:
        wait = retry_after(headers)
        name, setting = f"The provider at {self.address}", f"{self.settings_prefix}_API_KEY"
        if status == QUOTA:
            message = f"{name} says that its quota is used up ({429 if told == QUOTA else told})"
            sentence = self.quoting(message, payload, "The operator must check the account.")
            return ProviderUnavailableError(sentence, retry_after=wait)
        if status == 503 and "loading" in find_message(payload).lower():
            return ProviderUnavailableError(
                self.quoting(f"{name} is loading its model ({status})", payload), retry_after=wait
            )
        if status in _OVERLOADED_STATUSES:
            kind: type[ProviderUnavailableError] = ProviderOverloadedError
        elif status in _UNAVAILABLE_STATUSES or (status >= 500 and wait is not None):
            kind = ProviderUnavailableError
        elif status >= 500 or status in _TRANSIENT_STATUSES:
            failed = InputTooLongError if _is_too_long(status, payload) else ProviderError
            return failed(self.quoting(f"The provider failed ({status})", payload))
        elif status in (401, 403):
            message, then = f"{name} refused the key ({status})", f"The operator must check {setting}."
            return ProviderError(self.quoting(message, payload, then), retryable=False)
        else:
            message = f"The provider refused the request ({status})"
            refused = InputTooLongError if _is_too_long(status, payload) else ProviderError
            then = f"It is about the parameter {parameter}." if parameter else ""
            return refused(self.quoting(message, payload, then), retryable=False)
        return kind(self.quoting(f"{name} accepts no requests at the moment ({status})", payload), retry_after=wait)

    def _unreachable(self, error: httpx.ConnectError) -> ProviderError:
        target, reason = self.address, next(_causes(error, ssl.SSLError, OSError), None)
        if failed := next(_causes(error, ConnectFailedError), None):
            target = self._target(failed)
            reason = failed.reason
        if isinstance(reason, ssl.SSLCertVerificationError):
            words = reason.verify_message.rstrip(".")
            return ProviderError(
                f"The certificate of {target} is invalid: {words}. The operator must correct "
                f"{self.settings_prefix}_BASE_URL or the server's certificate, or name its authority in SSL_CERT_FILE.",
                retryable=False,
            )
        if isinstance(reason, ssl.SSLError):
            words = (reason.reason or "the connection was closed").replace("_", " ").lower()
            return ProviderUnavailableError(f"No TLS connection to {target}: {words}.")
        if isinstance(reason, socket.gaierror):
            return ProviderUnavailableError(f"The name of {target} was not found (DNS).")
        if isinstance(reason, ConnectionRefusedError):
            return ProviderUnavailableError(f"Connection refused by {target}.")
        words = (getattr(reason, "strerror", None) or "the connection failed").lower()
        return ProviderUnavailableError(f"{target} could not be reached: {words}.")

    def _target(self, failed: ConnectFailedError) -> str:
        """Name the target of the connection: the endpoint, or a proxy."""
        url = httpx.URL(self.address)
        port = url.port or (443 if url.scheme == "https" else 80)
        is_endpoint = (failed.host.strip("[]"), failed.port) == (url.raw_host.decode().strip("[]"), port)
        return self.address if is_endpoint else f"the proxy {failed.host}:{failed.port}"

    def _without_secrets(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "…")
        if len(text) > 4 * MAX_QUOTED:  # and not the half of a secret
            text = text[: 4 * MAX_QUOTED].rpartition(" ")[0] or "…"
        text = _SECRETS.sub("…", text)
        text = " ".join("".join(each if each.isprintable() else " " for each in text).split())
        return text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 1].rstrip() + "…"


def _is_too_long(status: int, payload: Any) -> bool:
    words = find_message(payload)[: 4 * MAX_QUOTED]
    return status == 413 or (status in (400, 422, 500) and _TOO_LONG.search(words) is not None)


def _causes(error: BaseException | None, *kinds: type[Exception]) -> Iterator[Any]:
    """Yield the errors of these kinds that led to an error. httpcore hides some of them by `from None`."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, kinds):
            yield error
        error = error.__cause__ or error.__context__
