"""Lists that come in pages."""

import math
from collections.abc import Iterator
from typing import Any

import httpx

from .http import json_list
from .resources import PromptFilter
from .session import Session

_MAX_PAGE_SIZE = 100


def filter_query(matching: PromptFilter) -> dict[str, Any]:
    """The query parameters of a filter."""
    pairs = {f"metadata[{key}]": value for key, value in (matching.get("metadata") or {}).items()}
    return {name: value for name, value in matching.items() if name != "metadata"} | pairs


def read_pages(session: Session, path: str, limit: int | None, **params: object) -> Iterator[Any]:
    """Yield the resources of a list: at most `limit`, or all. Pages are fetched on demand.

    Parameters that are None are left out.
    """
    left = math.inf if limit is None else limit
    query: dict[str, Any] = {name: value for name, value in params.items() if value is not None}
    while left > 0:
        query["limit"] = int(min(left, _MAX_PAGE_SIZE))
        response = session.request("GET", path, params=query)
        page = json_list(response, "id")
        yield from page
        left -= len(page)
        next_page = response.links.get("next")
        if next_page is None:
            return
        query = dict(httpx.URL(next_page["url"]).params)
