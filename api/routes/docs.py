"""The API reference: Swagger UI, from its wheel; nothing is loaded from another host."""

from importlib.resources import files
from pathlib import Path

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from api.http import static_files

_PAGE = Path(__file__).parents[1] / "http" / "openapi" / "page"
_SWAGGER_UI = Path(str(files("flask_openapi3_swagger"))) / "templates" / "swagger"

_FILES = {
    "start.js": (_PAGE, "start.js"),
    "theme.js": (_PAGE, "theme.js"),
    "accessibility.js": (_PAGE, "accessibility.js"),
    "style.css": (_PAGE, "style.css"),
    "swagger-ui.js": (_SWAGGER_UI / "js", "swagger-ui-bundle.js"),
    "swagger-ui.css": (_SWAGGER_UI / "css", "swagger-ui.css"),
}

#: Swagger UI has its icons in its stylesheet, as data.
CONTENT_SECURITY_POLICY = static_files.content_security_policy(img_src="'self' data:")


def blueprint() -> Blueprint:
    bp = Blueprint("docs", __name__, url_prefix="/docs")
    static_files.protect(bp, CONTENT_SECURITY_POLICY)
    bp.get("/")(page)
    bp.get("/<name>")(static)
    return bp


def page() -> Response:
    """The page. Its addresses are relative, and so differ between `/docs/` and `/docs`."""
    html = (_PAGE / "index.html").read_text("utf-8")
    if not request.path.endswith("/"):
        html = html.replace('="./', '="docs/')
    return Response(html, mimetype="text/html", headers={"Cache-Control": "no-cache"})


def static(name: str) -> Response:
    if name not in _FILES:
        raise NotFound
    return static_files.send(*_FILES[name])
