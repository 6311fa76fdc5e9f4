"""The playground: one page, and the files that it is made of. It is a client like any other."""

from pathlib import Path
from typing import cast

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

FOLDER = Path(__file__).parents[1] / "static"

#: Nothing runs or is loaded but the page's own files; it calls nothing but this host, and is nobody's frame.
#: Trusted types have the browser itself refuse text where HTML would be made of it.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)

# Said here, because browsers refuse a module of another type, and a machine's own list of types may have any.
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

bp = Blueprint("page", __name__)


@bp.get("/")
def playground() -> Response:
    """The page."""
    return _sent("index.html")


@bp.get("/static/<name>")
def static(name: str) -> Response:
    """A file of the page."""
    return _sent(name)


@bp.after_request
def _guard(response: Response) -> Response:
    """Adds what holds for each of them."""
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _sent(name: str) -> Response:
    """The file, which browsers keep, and ask about each time: all that they run is of one version.

    Raises:
        NotFound: there is none of this name.
    """
    if name not in {path.name for path in FOLDER.iterdir() if path.suffix in _TYPES}:
        raise NotFound
    file = FOLDER / name
    response = Response(file.read_bytes(), mimetype=_TYPES[file.suffix])
    response.cache_control.no_cache = True
    response.add_etag()
    return cast(Response, response.make_conditional(request))
