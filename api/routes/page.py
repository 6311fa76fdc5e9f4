"""The playground and the console: pages and their files. They use the API as any other client does."""

import re
from pathlib import Path

from flask import Blueprint, Response, request

from api.http import static_files

FOLDER = Path(__file__).parents[1] / "static"

#: Trusted types make the browser reject text where HTML is expected, unless the sanitizer of answers has made it. The
#: policy "worker", which can be made once, has the address of the worker that colours code.
CONTENT_SECURITY_POLICY = static_files.content_security_policy(
    require_trusted_types_for="'script'", trusted_types="dompurify worker"
)


class PageRoutes:
    """The page and its files.

    Args:
        registration_open: Whether the page offers to register.
    """

    def __init__(self, *, registration_open: bool) -> None:
        html = (FOLDER / "index.html").read_text("utf-8")
        closed = ('name="registration" content="open"', 'name="registration" content="closed"')
        self._html = html if registration_open else html.replace(*closed)

    def blueprint(self) -> Blueprint:
        bp = Blueprint("page", __name__)
        static_files.protect(bp, CONTENT_SECURITY_POLICY)
        bp.get("/")(self.page)
        bp.get("/p/<int:id>/")(self.prompt)
        bp.get("/admin/")(console)
        bp.get("/static/<path:name>")(static)
        return bp

    def page(self) -> Response:
        return _html(self._html)

    def prompt(self, id: int) -> Response:
        """The page of one prompt, which it fetches itself."""
        return _html(_moved(self._html, "../../" if request.path.endswith("/") else "../"))


def console() -> Response:
    """The page of the console."""
    html = (FOLDER / "console.html").read_text("utf-8")
    return _html(_moved(html, "../") if request.path.endswith("/") else html)


def static(name: str) -> Response:
    return static_files.send(FOLDER, name)


def _html(text: str) -> Response:
    response = Response(text, mimetype="text/html", headers={"Cache-Control": "no-cache"})
    response.add_etag()
    response.make_conditional(request)
    return response


def _moved(html: str, root: str) -> str:
    """The page for another path: its addresses are relative, because a proxy may publish the API below a path."""
    return re.sub(r'="(?:\./|(?=static/|docs/))', f'="{root}', html)
