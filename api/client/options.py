"""What all commands have in common: options, which stand before or after the command's name, and exit codes."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property, partial
from typing import Any, TypeVar

import click
import httpx

from .client import DEFAULT_URL, Client
from .errors import ClientError, NotLoggedInError, ProblemError, UnreachableError
from .output import Output
from .retries import USUAL
from .token_store import FileTokenStore
from .version import get_version

Command = TypeVar("Command", bound=Callable[..., Any] | click.Command)


class Exit(IntEnum):
    """How a command has ended."""

    FINE = 0
    FAILED = 1  #: the prompt that was waited for failed or was cancelled
    USAGE = 2  #: it was called wrongly
    REFUSED = 3  #: by the API: not found, conflict, invalid
    NOT_LOGGED_IN = 4
    UNREACHABLE = 5  #: the server, or it was too busy, however often it was tried
    INTERRUPTED = 130


@dataclass
class Options:
    """Which server, how to show, how long to try."""

    url: str = field(default_factory=lambda: os.environ.get("PROMPTWIRE_URL") or DEFAULT_URL)
    as_json: bool = False
    timeout: float = USUAL.seconds
    retries: int = int(USUAL.retries)

    def client(self) -> Client:
        """Raises click.UsageError if the URL is none."""
        url = self.url.rstrip("/")
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise click.UsageError(f"{self.url!r} is no URL: {error}.") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise click.UsageError(f"{self.url!r} is no URL of a server, such as {DEFAULT_URL}.")
        return Client(url, token_store=FileTokenStore.of(url), timeout=self.timeout, retries=self.retries)

    @cached_property
    def output(self) -> Output:
        output = Output(self.as_json)
        output.show_retries()
        return output


def common_options(command: Command) -> Command:
    """Adds the options that every command has, and the group."""
    for option in (
        partial(click.option, "--retries", type=click.IntRange(0), help="How often to try again on one's own.  [6]"),
        partial(click.option, "--timeout", type=click.FloatRange(0), help="How many seconds to go on trying.  [90]"),
        partial(click.option, "--json", "as_json", is_flag=True, default=None, help="One line of JSON a result."),
        partial(click.option, "--url", help=f"The server; or PROMPTWIRE_URL.  [{DEFAULT_URL}]"),
    ):
        command = option(expose_value=False, callback=_note)(command)
    return command


def _note(context: click.Context, parameter: click.Parameter, value: object) -> None:
    options = context.ensure_object(Options)
    if value is not None and parameter.name is not None:
        setattr(options, parameter.name, value)


def _show_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(f"promptwire, version {get_version()}")
        context.exit()


version_option = click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)


def exit_code(error: ClientError) -> Exit:
    """The exit code of a command that ended with this."""
    if isinstance(error, NotLoggedInError):
        return Exit.NOT_LOGGED_IN
    if isinstance(error, UnreachableError) or (isinstance(error, ProblemError) and error.may_pass):
        return Exit.UNREACHABLE
    return Exit.REFUSED
