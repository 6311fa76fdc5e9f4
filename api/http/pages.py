"""Pages of a list: their size in bytes, and the cursor and the link of the next one."""

import base64
import binascii
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from flask import Response, jsonify, request
from pydantic_core import to_json
from werkzeug.exceptions import BadRequest

from api.http.fields import MAX_ID


def within_bytes(resources: Iterable[dict[str, Any]], max_bytes: int) -> list[dict[str, Any]]:
    """The first of the resources whose JSON has at most `max_bytes` together; at least one."""
    resources = list(resources)
    return resources[: len(_render(resources, max_bytes))]


def json_page(resources: Iterable[dict[str, Any]], max_bytes: int) -> tuple[Response, int]:
    """Render as many of the resources as fit into `max_bytes` of a JSON array, at least one. Returns their number, too.

    Queries already bound the bytes of the texts, but JSON may need six times as many: it escapes control characters.
    """
    rendered = _render(resources, max_bytes)
    return Response(b"[" + b",".join(rendered) + b"]\n", mimetype="application/json"), len(rendered)


def _render(resources: Iterable[dict[str, Any]], max_bytes: int) -> list[bytes]:
    rendered: list[bytes] = []
    size = 1
    for resource in resources:
        each = to_json(resource)
        size += len(each) + 2
        if rendered and size > max_bytes:
            break
        rendered.append(each)
    return rendered


def add_next_link(response: Response, path: str, **parameters: object) -> None:
    """Add the link to the next page. Parameters that are None are left out."""
    query = urlencode({name: value for name, value in parameters.items() if value is not None})
    response.headers["Link"] = f'<{request.script_root}{path}?{query}>; rel="next"'


def add_older_link(response: Response, path: str, *, limit: int, before: int, **parameters: object) -> None:
    """Add the link to the next page of a list, newest first, that ends with the id `before`."""
    add_next_link(response, path, limit=limit, cursor=encode_cursor("before", before), **parameters)


def older_page(path: str, shown: list[dict[str, Any]], limit: int, **parameters: object) -> Response:
    """A page of at most `limit` rows with ids, newest first. If there is a next page, `shown` has one row more."""
    response = jsonify(shown[:limit])
    if len(shown) > limit:
        add_older_link(response, path, before=shown[limit - 1]["id"], limit=limit, **parameters)
    return response


def decode_before(cursor: str | None) -> int | None:
    """The id before which a page of such a list begins; None without a cursor. Raises BadRequest."""
    return None if cursor is None else decode_cursor("before", cursor, highest=MAX_ID)


def set_location(response: Response, path: str) -> None:
    """Add the address of the resource that the request has created or changed."""
    response.headers["Location"] = f"{request.script_root}{path}"


def encode_cursor(kind: str, number: int) -> str:
    return base64.urlsafe_b64encode(f"{kind}:{number}".encode()).decode().rstrip("=")


def decode_cursor(kind: str, cursor: str, *, highest: int) -> int:
    """The number in a cursor.

    Raises:
        BadRequest: it is not a cursor of this kind with a number from 1 to `highest`.
    """
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        number = int(text.removeprefix(f"{kind}:"))
    except (binascii.Error, ValueError):
        number = 0
    if not 0 < number <= highest or encode_cursor(kind, number) != cursor:
        raise BadRequest("The cursor is not one from a `next` link.")
    return number
