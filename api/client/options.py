"""The options of all commands, before or after the command's name, and the exit codes."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property, partial
from typing import Any, TypeVar

import click
import httpx

from .client import DEFAULT_URL, Client
from .errors import ClientError, NotLoggedInError, ProblemError, UnreachableError
from .output import Output
from .retries import DEFAULT_LIMITS
from .time_limit import time_limit
from .token_store import FileTokenStore
from .version import get_version

API_KEY_VARIABLE = "PROMPTWIRE_API_KEY"

#: A whole command may take this much longer than its requests, so that those that get no answer can say so.
_GRACE_SECONDS = 1.0
_MAX_TIMEOUT_SECONDS = 1e9  # timers take no more

Command = TypeVar("Command", bound=Callable[..., Any] | click.Command)


class Integer(click.IntRange):
    """An integer in a range. Errors and help say so; click says "integer range"."""

    name = "integer"


class Number(click.FloatRange):
    """A number in a range. Errors and help say so; click says "float range"."""

    name = "number"


#: A file to read. It is opened when it is read, so that no file stays open if another argument is refused.
READ_FILE = click.File(encoding="utf-8", lazy=True)


class Exit(IntEnum):
    """The exit codes of the commands."""

    OK = 0
    FAILED = 1  #: the prompt failed or was cancelled
    USAGE = 2  #: wrong arguments
    REFUSED = 3  #: the API refused: not found, conflict, invalid
    NOT_LOGGED_IN = 4
    UNREACHABLE = 5  #: the server cannot be reached, or is too busy, after all retries
    FAULT = 70  #: a fault of this program, or a response that it does not understand; as in sysexits.h
    TIMED_OUT = 124  #: the command, or what it waits for, took longer than `--timeout`; as timeout(1) does
    INTERRUPTED = 130


@dataclass
class Options:
    """The server, the API key, the output format, and the retry limits."""

    #: Never an argument: others could see it, shells store it.
    api_key: str | None = field(default_factory=lambda: os.environ.get(API_KEY_VARIABLE, "").strip() or None)
    url: str = field(default_factory=lambda: os.environ.get("PROMPTWIRE_URL") or DEFAULT_URL)
    as_json: bool = False
    timeout: float | None = None
    retries: int = int(DEFAULT_LIMITS.retries)
    started: float = field(default_factory=time.monotonic)

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Make a client for the block, which `--timeout` limits.

        Raises:
            click.UsageError: the URL or the API key is invalid.
            TimeLimitReached: the block took too long.
        """
        deadline = None if self.timeout is None else self.started + self.timeout + _GRACE_SECONDS
        with self._make_client() as client, time_limit(deadline, "The command took longer than --timeout allows."):
            yield client

    def _make_client(self) -> Client:
        url = self.url.rstrip("/")
        try:
            parsed = httpx.URL(url)
            parsed.host.encode("idna")  # as looking it up does
        except (httpx.InvalidURL, UnicodeError) as error:
            raise click.UsageError(f"{self.url!r} is not a valid URL: {error}.") from error
        if parsed.userinfo:
            raise click.UsageError("The URL must not have a password: log in, or use an API key.")
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise click.UsageError(f"{self.url!r} is not the URL of a server, such as {DEFAULT_URL}.")
        token_store = FileTokenStore.for_server(url)
        timeout = DEFAULT_LIMITS.seconds if self.timeout is None else self.timeout
        try:
            return Client(url, api_key=self.api_key, token_store=token_store, timeout=timeout, retries=self.retries)
        except ValueError as error:
            raise click.UsageError(f"{API_KEY_VARIABLE} is not valid: {error}.") from error

    def time_limit(self) -> AbstractContextManager[None]:
        """End a wait in the block when `--timeout`, counted from the start of the command, is over."""
        return time_limit(None if self.timeout is None else self.started + self.timeout)

    @cached_property
    def output(self) -> Output:
        output = Output(self.as_json)
        output.show_retries()
        return output


class _Seconds(Number):
    """A number of seconds that a timer can take."""

    def __init__(self) -> None:
        super().__init__(0, _MAX_TIMEOUT_SECONDS)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


def _show_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(f"promptwire, version {get_version()}")
        context.exit()


_VERSION = click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)


def common_options(command: Command) -> Command:
    """Add the common options to a command or to a group."""
    for option in (
        partial(click.option, "--retries", type=Integer(0), help="How often to retry a failed request.  [6]"),
        partial(
            click.option,
            "--timeout",
            type=_Seconds(),
            help="How many seconds the command may take.  [a request: 90, waiting: no limit]",
        ),
        partial(
            click.option, "--json", "as_json", is_flag=True, default=None, help="Print each result as a line of JSON."
        ),
        partial(click.option, "--url", help=f"The server's URL, or set PROMPTWIRE_URL.  [{DEFAULT_URL}]"),
    ):
        command = option(expose_value=False, callback=_store)(command)
    return _VERSION(command)


def _store(context: click.Context, parameter: click.Parameter, value: object) -> None:
    options = context.ensure_object(Options)
    if value is not None and parameter.name is not None:
        setattr(options, parameter.name, value)


def exit_code(error: ClientError) -> Exit:
    """The exit code for an error."""
    if isinstance(error, NotLoggedInError):
        return Exit.NOT_LOGGED_IN
    if isinstance(error, UnreachableError) or (isinstance(error, ProblemError) and error.is_temporary):
        return Exit.UNREACHABLE
    return Exit.REFUSED
