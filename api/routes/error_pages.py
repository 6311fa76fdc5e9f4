"""Error pages: browsers get a page instead of a problem (RFC 9457)."""

from html import escape
from http import HTTPStatus
from pathlib import Path
from string import Template

from flask import Flask, Response, request

from api.http.requests import request_id
from api.routes import page

_PAGE = Template(Path(__file__).with_name("error_page.html").read_text("utf-8"))
_PROBLEM = "application/problem+json"
#: If a client accepts several of these equally, it gets the first one.
_MEDIA_TYPES = (_PROBLEM, "application/json", "text/html")
_HEADINGS: dict[int, str] = {
    HTTPStatus.NOT_FOUND: "Page not found",
    HTTPStatus.METHOD_NOT_ALLOWED: "This address is not a page",
    HTTPStatus.INTERNAL_SERVER_ERROR: "Something went wrong",
    HTTPStatus.SERVICE_UNAVAILABLE: "Promptwire is not available",
}


def init_app(app: Flask) -> None:
    app.after_request(_render)


def _render(response: Response) -> Response:
    """Replace a problem by a page if the client prefers HTML, as browsers do. All other headers stay."""
    heading = _HEADINGS.get(response.status_code) if response.mimetype == _PROBLEM else None
    if heading is None or request.accept_mimetypes.best_match(_MEDIA_TYPES) != "text/html":
        return response
    problem = response.get_json()
    values = {
        "root": f"{request.script_root}/",
        "heading": heading,
        "request_id": request_id(),
        **{name: problem[name] for name in ("title", "status", "detail")},
    }
    response.set_data(_PAGE.substitute({name: escape(str(value)) for name, value in values.items()}))
    response.mimetype = "text/html"
    response.headers["Content-Security-Policy"] = page.CONTENT_SECURITY_POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
