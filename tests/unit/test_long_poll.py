"""Parsing of `Prefer: wait=N` (RFC 7240)."""

import pytest

from api.realtime.long_poll import preferred_wait


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("wait=0", 0),
        ("wait=10", 10),
        ("wait=60", 60),
        ("wait=61", 60),
        ("Wait = 5", 5),
        ('wait="5"', 5),
        ("respond-async, wait=5", 5),
        ("wait=5; foo=bar", 5),
        ("handling=lenient; wait=5", 5),
        ("wait=5.5", None),
        ("wait=-5", None),
        ("wait", None),
        ("wait=", None),
        ("xwait=5", None),
        ("wait=99999999999999999999", None),
    ],
)
def test_the_preferred_wait_is_parsed_from_the_header(header: str | None, seconds: int | None) -> None:
    assert preferred_wait(header) == seconds
