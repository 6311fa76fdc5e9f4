"""The API's public address, where proxies in front of it change the host, the port, the scheme or the path.

PUBLIC_URL names the address. What a proxy says in `X-Forwarded-*` counts only with TRUSTED_PROXIES.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from flask import Flask, Response, request
from werkzeug.exceptions import BadRequest

from shared.settings import Settings
from shared.settings.public_url import parse_public_url

log = structlog.get_logger(__name__)

#: One year, for this host alone. Browsers that have seen it refuse plain HTTP for as long (RFC 6797).
STRICT_TRANSPORT_SECURITY = "max-age=31536000"

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
#: Load balancers, Kubernetes and Prometheus call these by the address of a machine.
_ANY_HOST = {"livez", "readyz", "metrics"}
#: These are not below the prefix: an address that is meant for clients must not lead to them.
_WITHOUT_PREFIX = {"readyz", "metrics"}
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::\d*)?")

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class PublicAddress:
    """What the settings say about the public address."""

    def __init__(self, settings: Settings) -> None:
        url = parse_public_url(settings.public_url) if settings.public_url else None
        self._scheme = None if url is None else url.scheme
        self._origins = {*settings.allowed_origins} | (set() if url is None else {url.origin})
        self._hosts = {*_LOOPBACK, *settings.allowed_hosts} | (set() if url is None else {url.host})
        self._has_any_host = "*" in self._hosts or not (settings.allowed_hosts or settings.app_env == "prod")
        #: The path below which everything is, such as `/promptwire`; empty if there is none.
        self.prefix = "" if url is None else url.prefix

    def init_app(self, app: Flask) -> None:
        if not self._has_any_host:
            app.before_request(self._check_hosts)
        app.after_request(_demand_https)

    def allows_host(self, host: str) -> bool:
        """Whether requests may have this `Host`. Its port does not matter."""
        found = _HOST.fullmatch(host)
        if self._has_any_host or found is None:
            return self._has_any_host
        name = found[1].lower().removesuffix(".")
        parents = (name[i:] for i, character in enumerate(name) if character == ".")
        return name in self._hosts or f".{name}" in self._hosts or any(parent in self._hosts for parent in parents)

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether a page of this origin may open sockets at this host."""
        is_same = host != "" and origin.partition("://")[2] == host
        return is_same or origin in self._origins or "*" in self._origins

    def middleware(self, app: Wsgi) -> Wsgi:
        """Wrap an application, so that it has its paths without the prefix, whether or not a proxy has removed it.

        No path of the API begins like the prefix (`parse_public_url`), so a path that does still has it. The scheme is
        that of PUBLIC_URL, unless a trusted proxy says another one.
        """
        prefix, scheme = self.prefix, self._scheme

        def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            if scheme is not None:
                environ["wsgi.url_scheme"] = scheme
            if prefix:
                path = environ["PATH_INFO"]
                environ["SCRIPT_NAME"] = prefix
                if path == prefix:  # relative addresses in the page need the slash
                    start_response("308 Permanent Redirect", [("Location", f"{prefix}/"), ("Content-Length", "0")])
                    return []
                rest = path.removeprefix(prefix)
                if path.startswith(f"{prefix}/") and rest.strip("/") not in _WITHOUT_PREFIX:
                    environ["PATH_INFO"] = rest
            return app(environ, start_response)

        return serve

    def _check_hosts(self) -> None:
        """Refuse a request if it, or a proxy that may change it, names another host."""
        if request.path.strip("/") in _ANY_HOST:
            return
        original = request.environ.get("werkzeug.proxy_fix.orig", request.environ).get("HTTP_HOST")
        for host in {original or "", request.environ.get("HTTP_HOST", "")}:
            if not self.allows_host(host):
                log.warning("host refused; to allow it, set PUBLIC_URL or ALLOWED_HOSTS", host=host)
                raise BadRequest("This service has another address.")


def _demand_https(response: Response) -> Response:
    if request.scheme.lower() == "https":  # as a proxy writes it
        response.headers["Strict-Transport-Security"] = STRICT_TRANSPORT_SECURITY
    return response
