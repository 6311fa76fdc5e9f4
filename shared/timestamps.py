"""Times as the API writes them."""

from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """The moment in UTC with milliseconds and `Z`: `2026-11-22T21:05:00.123Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def rfc3339_or_none(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)


def now() -> str:
    return rfc3339(datetime.now(UTC))
