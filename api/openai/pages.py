"""Pages of lists as OpenAI's API has them: `after` the last object of the page before."""

from typing import Any

from shared.errors import InvalidFieldsError


def listed(objects: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """Render a page."""
    first, last = (objects[0]["id"], objects[-1]["id"]) if objects else (None, None)
    return {"object": "list", "data": objects, "first_id": first, "last_id": last, "has_more": has_more}


def page_of_items(items: list[dict[str, Any]], *, limit: int, order: str, after: str | None) -> dict[str, Any]:
    """Render a page of items that are all known, oldest first; with the order `desc`, they are reversed.

    Raises:
        InvalidFieldsError: there is no item `after`.
    """
    if order == "desc":
        items = items[::-1]
    known = [item["id"] for item in items]
    if after is not None and after not in known:
        raise InvalidFieldsError(f"There is no item {after:.100}.", ["after"])
    start = 0 if after is None else known.index(after) + 1
    return listed(items[start : start + limit], has_more=start + limit < len(items))
