"""Log lines with text from outside are single lines without control characters, in both formats."""

import json
import logging
import sys
import unicodedata
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shared.telemetry import logs
from tests.support.servers import make_settings

FORGED = "x\u2028\x85\r\n2026-11-29T12:00:00Z [critical] forged\x1b[2J\x1b]0;title\x07\x7f\x9b31m\u202eevil\u2066\0\f\v"
DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

FORMATS = pytest.mark.parametrize("log_format", ["console", "json"])
TEXTS = st.text(st.characters() | st.sampled_from(FORGED))


def is_safe(text: str) -> bool:
    """Whether the text has neither control characters nor line separators, and can be encoded in UTF-8."""
    return not any(unicodedata.category(each) in ("Cc", "Zl", "Zp", "Cs") or each in DIRECTIONS for each in text)


def render(log_format: str, event: str, **fields: Any) -> str:
    settings = make_settings(log_format=log_format)
    logger = structlog.wrap_logger(structlog.ReturnLogger(), processors=logs._renderers(settings))
    return logger.warning(event, **fields)


def render_foreign(log_format: str, message: str, *arguments: object, exc_info: Any = None) -> str:
    """A line of gunicorn's, Celery's or another library's logger."""
    record = logging.LogRecord("celery.app", logging.ERROR, __file__, 1, message, arguments, exc_info)
    return logs.formatter(make_settings(log_format=log_format)).format(record)


@FORMATS
@given(event=TEXTS, key=TEXTS, value=TEXTS | st.lists(TEXTS) | st.dictionaries(TEXTS, TEXTS) | st.binary())
def test_a_line_has_no_control_characters_whatever_is_logged(log_format: str, event: str, key: str, value: Any) -> None:
    assert is_safe(render(log_format, event, **{f"k{key}": value}))


@FORMATS
@given(message=TEXTS, argument=TEXTS)
def test_a_line_of_a_library_has_no_control_characters(log_format: str, message: str, argument: str) -> None:
    assert is_safe(render_foreign(log_format, message.replace("%", "") + "%s", argument))


@given(event=st.text(), value=st.text())
def test_json_holds_the_texts_as_they_were(event: str, value: str) -> None:
    assert json.loads(render("json", event, field=value)) == {"event": event, "field": value}


def test_ordinary_text_is_shown_as_it_is() -> None:
    line = render("console", "prompt completed", path="/prompts/", name="Zoë", ms=1.5, missing=None)
    assert {"path=/prompts/", "name=Zoë", "ms=1.5", "missing=None"} <= set(line.split())


def test_control_characters_are_shown_as_in_a_python_string() -> None:
    assert r"path=/x\u2028y\x1b[2J\n" in render("console", "request", path="/x\u2028y\x1b[2J\n")


class Odd:
    def __repr__(self) -> str:
        return FORGED


@FORMATS
def test_the_representation_of_an_object_is_escaped(log_format: str) -> None:
    assert is_safe(render(log_format, "event", value=Odd()))
    assert is_safe(render_foreign(log_format, "%r", Odd()))


def chained() -> None:
    try:
        try:
            raise KeyError(FORGED)  # noqa: TRY301
        except KeyError as error:
            error.add_note(FORGED)
            raise ValueError(FORGED) from error
    except ValueError:
        members = [RuntimeError(FORGED), SyntaxError(FORGED, (FORGED, 1, 1, FORGED))]
        raise ExceptionGroup(FORGED, members)  # noqa: B904


@pytest.mark.parametrize("rendering", [render, render_foreign])
@FORMATS
def test_messages_in_a_traceback_are_one_line_each(log_format: str, rendering: Any) -> None:
    try:
        chained()
    except ExceptionGroup:
        exc_info = sys.exc_info()
    text = rendering(log_format, "request failed", exc_info=exc_info)
    if log_format == "json":
        assert is_safe(text)
        text = json.loads(text)["exception"]
    lines = text.split("\n")
    assert all(is_safe(line) for line in lines)
    assert not any(line.startswith("2026") for line in lines[1:])
    assert sum("[critical] forged" in line for line in lines) >= 5
    assert any(line.startswith("  + Exception Group Traceback (most recent call last):") for line in lines)
    assert "chained" in text
