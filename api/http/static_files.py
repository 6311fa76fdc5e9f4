"""Files for browsers: how they are sent, and what a page may load."""

from pathlib import Path

from flask import Blueprint, Response, send_from_directory

# A browser rejects a module of another type, and the system's table of types may have any for these.
_MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}


def content_security_policy(**directives: str) -> str:
    """A policy for a page that loads and calls only this host, runs nothing inline, and is never framed.

    `directives` are added or changed, such as `img_src="'self' data:"`.
    """
    policy = {
        "default_src": "'none'",
        "script_src": "'self'",
        "style_src": "'self'",
        "img_src": "'self'",
        "connect_src": "'self'",
        "base_uri": "'none'",
        "form_action": "'none'",
        "frame_ancestors": "'none'",
    }
    return "; ".join(f"{name.replace('_', '-')} {value}" for name, value in (policy | directives).items())


def protect(bp: Blueprint, policy: str) -> None:
    """Add the policy, and no referrer, to all responses of a blueprint."""

    @bp.after_request
    def add_headers(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["Referrer-Policy"] = "no-referrer"
        return response


def send(folder: Path, name: str) -> Response:
    """Send a file. Browsers keep it and revalidate it each time, so that all files of a page are of one version.

    Raises:
        NotFound: the folder has no such file.
    """
    return send_from_directory(folder, name, mimetype=_MEDIA_TYPES.get(Path(name).suffix))
