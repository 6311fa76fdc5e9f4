"""The playground and the console: pages and their files. They use the API as any other client does."""

from pathlib import Path

from flask import Blueprint, Response, request

from api.http import static_files

FOLDER = Path(__file__).parents[1] / "static"

#: Trusted types make the browser reject text where HTML is expected.
CONTENT_SECURITY_POLICY = static_files.content_security_policy(
    require_trusted_types_for="'script'", trusted_types="'none'"
)


def blueprint() -> Blueprint:
    bp = Blueprint("page", __name__)
    static_files.protect(bp, CONTENT_SECURITY_POLICY)
    bp.get("/")(page)
    bp.get("/admin/")(console)
    bp.get("/static/<name>")(static)
    return bp


def page() -> Response:
    return static_files.send(FOLDER, "index.html")


def console() -> Response:
    """The page of the console. Its addresses are relative, and so differ between `/admin/` and `/admin`."""
    html = (FOLDER / "console.html").read_text("utf-8")
    if request.path.endswith("/"):
        for name in ("static/", "docs/", "./"):
            html = html.replace(f'="{name}', f'="../{name.removeprefix("./")}')
    return Response(html, mimetype="text/html", headers={"Cache-Control": "no-cache"})


def static(name: str) -> Response:
    return static_files.send(FOLDER, name)
