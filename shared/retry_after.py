"""`Retry-After` of a response: how long its server asks a client to wait."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_SECONDS = 24 * 60 * 60


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait before the next request, at most a day; None if the headers do not say.

    Reads `Retry-After` (RFC 9110, 10.2.3: seconds or a date) and OpenAI's `retry-after-ms`.
    """
    seconds = _number(headers.get("retry-after-ms"), 0.001)
    if seconds is None:
        seconds = _number(headers.get("retry-after"))
    if seconds is None:
        seconds = _seconds_until(headers.get("retry-after"))
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _number(text: str | None, unit: float = 1) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number * unit if math.isfinite(number) else None


def _seconds_until(date: str | None) -> float | None:
    try:
        then = parsedate_to_datetime(date or "")
    except (ValueError, OverflowError):  # a zone or an hour with too many digits
        return None
    return (then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
