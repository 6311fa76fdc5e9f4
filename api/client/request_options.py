"""Options that several commands share: for requests, for filters of prompts, and for usage reports."""

import json
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import PurePath
from typing import Any, TextIO

import click

from .options import READ_FILE, Integer, Number

Command = Callable[..., Any]


def _pairs(_: click.Context, __: click.Parameter, values: Sequence[str]) -> dict[str, str] | None:
    """The pairs of `--metadata key=value`, which may be repeated; None if there are none."""
    pairs = [value.partition("=") for value in values]
    if any(not separator for _, separator, _ in pairs):
        raise click.BadParameter("it must be KEY=VALUE.")
    return {key: value for key, _, value in pairs} or None


def _answer_schema(_: click.Context, __: click.Parameter, file: TextIO | None) -> dict[str, Any] | None:
    """The response format of a file with a JSON Schema."""
    if file is None:
        return None
    try:
        with file:
            schema = json.load(file)
    except ValueError as error:
        raise click.BadParameter(f"{file.name} is not JSON: {error}.") from error
    name = "".join(letter for letter in PurePath(file.name).stem if letter.isascii() and letter.isalnum())
    return {"type": "json_schema", "json_schema": {"name": name[:64] or "answer", "schema": schema, "strict": True}}


_MODEL = click.option("--model", metavar="NAME", help="One of the models that `promptwire models` lists.")
_METADATA = click.option(
    "--metadata", metavar="KEY=VALUE", multiple=True, callback=_pairs, help="A pair of its metadata; may be repeated."
)
_REQUEST = (
    click.option(
        "--json-schema",
        "response_format",
        metavar="FILE",
        type=READ_FILE,
        callback=_answer_schema,
        help="The answer is JSON that satisfies the schema in this file.",
    ),
    click.option("--max-output-tokens", metavar="N", type=Integer(1), help="Cut the answer off after N tokens."),
    click.option("--temperature", metavar="T", type=Number(0, 2), help="How random the answer is, from 0 to 2."),
    _METADATA,
    click.option("--instructions", metavar="TEXT", help="What the model is told before the prompt."),
    _MODEL,
)
_FILTER = (
    click.option(
        "--until", metavar="TIME", help="Only prompts submitted before this time, such as 2026-11-30T12:00:00Z."
    ),
    click.option("--since", metavar="TIME", help="Only prompts submitted at this time or later."),
    _METADATA,
    _MODEL,
)


def _collected(
    argument: str, names: Sequence[str], options: Sequence[Callable[[Command], Command]]
) -> Callable[[Command], Command]:
    """Add the options to a command, which gets their values in one argument."""

    def decorate(command: Command) -> Command:
        @wraps(command)
        def collecting(*args: Any, **values: Any) -> Any:
            collected = {name: values.pop(name) for name in names}
            return command(*args, **values, **{argument: collected})

        decorated: Command = collecting
        for option in options:
            decorated = option(decorated)
        return decorated

    return decorate


#: Gives a command the argument `request`: keyword arguments of `Client.submit`.
request_options = _collected(
    "request",
    ("model", "instructions", "metadata", "temperature", "max_output_tokens", "response_format"),
    _REQUEST,
)
#: Gives a command the argument `matching`: keyword arguments of `Client.prompts`.
filter_options = _collected("matching", ("model", "metadata", "since", "until"), _FILTER)


def usage_options(groups: Sequence[str], default: str) -> Callable[[Command], Command]:
    """Give a command the argument `query`: keyword arguments of `Client.usage`. `groups` has the choices of `--by`."""
    options = (
        click.option("--until", metavar="DAY", help="The last day (UTC).  [today]"),
        click.option("--since", metavar="DAY", help="The first day (UTC).  [that of the month]"),
        click.option("--by", type=click.Choice(groups), default=default, show_default=True, help="What to group by."),
    )
    return _collected("query", ("by", "since", "until"), options)
