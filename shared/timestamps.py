"""Times as the API writes them."""

import re
from datetime import UTC, datetime

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def rfc3339(moment: datetime) -> str:
    """The moment in UTC with milliseconds and `Z`: `2026-11-22T21:05:00.123Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def rfc3339_or_none(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)


def parse(text: str) -> datetime:
    """Parse a time as RFC 3339 has it, with an offset. The result is in UTC. Raises ValueError if it is malformed.

    A leap second is taken for the second before it.
    """
    if _RFC3339.fullmatch(text):
        try:
            seconds = text[17:19] if text[17:19] != "60" else "59"
            return datetime.fromisoformat(f"{text[:17]}{seconds}{text[19:]}".upper()).astimezone(UTC)
        except (ValueError, OverflowError):  # as on February 30
            pass
    raise ValueError("must be a time with an offset, such as 2027-01-31T12:00:00Z")


def now() -> str:
    return rfc3339(datetime.now(UTC))
