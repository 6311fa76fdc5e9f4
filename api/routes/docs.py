"""The API's description as a page: Swagger UI, from the wheel that holds it, and nothing from anywhere else."""

from http import HTTPStatus
from importlib.resources import files
from pathlib import Path

from flask import Blueprint, Response, send_file
from werkzeug.exceptions import NotFound

_OURS = Path(__file__).parents[1] / "http" / "openapi" / "page"
_SWAGGER_UI = Path(str(files("flask_openapi3_swagger"))) / "templates" / "swagger"

_FILES = {
    "start.js": (_OURS / "start.js", "text/javascript"),
    "style.css": (_OURS / "style.css", "text/css"),
    "swagger-ui.js": (_SWAGGER_UI / "js" / "swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui.css": (_SWAGGER_UI / "css" / "swagger-ui.css", "text/css"),
}

#: Nothing runs or is loaded but these files, and it calls nothing but this host. Swagger UI has its icons in its
#: stylesheet, as data.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)

bp = Blueprint("docs", __name__, url_prefix="/docs")


@bp.get("/")
def page() -> Response:
    """The page."""
    return _sent(_OURS / "index.html", "text/html")


@bp.get("/<name>")
def part(name: str) -> Response:
    """A file that the page is made of."""
    if name not in _FILES:
        raise NotFound
    return _sent(*_FILES[name])


@bp.after_request
def _guard(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _sent(path: Path, mimetype: str) -> Response:
    """The file, which browsers keep, and ask about each time: all of it is of one version, also after an upgrade."""
    response = send_file(path, mimetype=mimetype)
    if response.status_code == HTTPStatus.OK:
        response.direct_passthrough = False
    return response
