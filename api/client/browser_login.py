"""Logging in with a browser: the server's identity provider sends it back to a port of this machine (RFC 8252)."""

import base64
import hashlib
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

from .errors import NotLoggedInError

_REASONS = {
    "provider-unavailable": "The identity provider cannot be reached at the moment.",
    "invalid-response": "The identity provider's answer was not valid.",
    "refused": "The identity provider did not sign you in.",
    "expired": "The sign-in took too long.",
    "not-permitted": "Your account at the identity provider may not be used here.",
}
_CLOSE = "You can close this window."


class BrowserLogin:
    """A login that a browser finishes. The port is open within the `with` block, to this machine only.

    Attributes:
        url: What the browser must open.
        verifier: The secret that belongs to the code (PKCE).
    """

    def __init__(self, server_url: str) -> None:
        self.verifier = secrets.token_urlsafe(32)
        self._found: dict[str, str] = {}
        self._is_over = threading.Event()
        self._listener = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        digest = hashlib.sha256(self.verifier.encode()).digest()
        self._challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        query = urlencode({"code_challenge": self._challenge, "port": self._listener.server_port})
        self.url = f"{server_url}/auth/oidc/login/?{query}"

    def __enter__(self) -> "BrowserLogin":
        threading.Thread(target=self._listener.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown()
        self._listener.server_close()

    def wait(self, seconds: float) -> str:
        """Wait for the browser. Returns the code of the sign-in.

        Raises:
            NotLoggedInError: it failed, or it took longer.
        """
        if not self._is_over.wait(seconds):
            raise NotLoggedInError(f"The browser has not finished the login within {seconds:g} s.")
        if "code" not in self._found:
            raise NotLoggedInError(_REASONS.get(self._found["error"], "The sign-in failed."))
        return self._found["code"]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        login = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10.0  # browsers open connections that they do not use

            def do_GET(self) -> None:
                query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
                # Only who knows the address with the challenge can answer: any page may send requests to this port.
                is_answer = query.get("state") == login._challenge and query.keys() & {"code", "error"}
                if is_answer and not login._is_over.is_set():
                    login._found = query
                text = f"You are back in the terminal. {_CLOSE}" if is_answer else _CLOSE
                try:
                    self.send_response(200 if is_answer else 404)
                    self.send_header("Content-Type", "text/plain; charset=utf-8")
                    self.end_headers()
                    self.wfile.write(text.encode())
                finally:
                    if is_answer:
                        login._is_over.set()

            def log_message(self, *_: object) -> None:
                """Nothing: standard error is for people, and the path has the code."""

        return Handler
