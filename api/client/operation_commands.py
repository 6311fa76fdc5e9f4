"""The commands of `promptwire admin` for operations: retrying and cancelling prompts by a filter."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import admin_tables as tables
from .admin import Action, Resource
from .client import Client
from .options import Integer, Options, common_options
from .time_limit import TimeLimitReached

Command = TypeVar("Command", bound=Callable[..., Any])

_MAX_MODELS_SHOWN = 5

limit_option = click.option("--limit", type=Integer(1), default=20, show_default=True, help="How many to show.")
_id = click.argument("operation_id", metavar="ID", type=Integer(1))


def _filter_options(statuses: Sequence[str], since: str) -> Callable[[Command], Command]:
    """Add the options of an operation's filter. `since` says which time of a prompt is compared."""

    def decorate(command: Command) -> Command:
        for option in reversed(
            (
                click.option("--status", type=click.Choice(statuses), help="Only prompts with this status."),
                click.option("--model", help="Only prompts of this model."),
                click.option("--user", metavar="NAME", help="Only prompts of this user."),
                click.option("--error", metavar="TEXT", help="Only prompts whose error begins with this."),
                click.option("--since", metavar="TIME", help=f"Only prompts that {since} at this time or later."),
                click.option("--until", metavar="TIME", help=f"Only prompts that {since} before this time."),
                click.option("--batch", metavar="BATCH", help="Only lines of this batch."),
                click.option("--id", "ids", type=Integer(1), multiple=True, help="This prompt; repeatable."),
                click.option("--operation", type=Integer(1), help="Only prompts that this operation changed."),
                click.option("--dry-run", is_flag=True, help="Only count."),
                click.option("--yes", is_flag=True, help="Do not ask for confirmation."),
                click.option("--no-wait", is_flag=True, help="Do not wait until it has ended."),
            )
        ):
            command = option(command)
        return command

    return decorate


@click.command()
@_filter_options(("failed", "cancelled"), "ended")
@common_options
@click.pass_obj
def retry(options: Options, /, **given: Any) -> None:
    """Retry all prompts that match, after showing how many. Without --status, those that failed."""
    _operate(options, "retry", **given)


@click.command()
@_filter_options(("queued", "processing"), "were queued")
@common_options
@click.pass_obj
def cancel(options: Options, /, **given: Any) -> None:
    """Cancel all prompts that match, after showing how many. Without --status, all that have not ended."""
    _operate(options, "cancel", **given)


def _operate(options: Options, action: Action, *, dry_run: bool, yes: bool, no_wait: bool, **given: Any) -> None:
    with options.client() as client:
        wanted = {name: value for name, value in given.items() if value not in (None, ())}
        if "user" in wanted:
            wanted["user"] = user_id(client, wanted["user"])
        counted = client.admin.count(action, wanted)
        text = _count_text(action, counted)
        if dry_run:
            options.output.result(counted, text)
            return
        options.output.note(text)
        if not counted["count"]:
            return
        if not yes:
            click.confirm(f"{action.capitalize()} them?", abort=True, err=True)
        operation = client.admin.begin(action, wanted, expected_count=counted["count"])
        if not no_wait:
            operation = _wait(options, client, operation["id"])
    options.output.result(operation, tables.operation_text(operation))
    options.output.hint(f"`promptwire admin undo {operation['id']}` undoes what has not started.")


def _count_text(action: Action, counted: Resource) -> str:
    count = counted["count"]
    if not count:
        return f"There are no prompts to {action}."
    models = [f"{each['prompts']:,} of {each['model']}" for each in counted["models"]]
    more = ", …" if len(models) > _MAX_MODELS_SHOWN else ""
    users = f"{counted['users']:,} user{'' if counted['users'] == 1 else 's'}"
    return (
        f"{count:,} prompt{'' if count == 1 else 's'} of {users} to {action}: "
        f"{', '.join(models[:_MAX_MODELS_SHOWN])}{more}."
    )


@click.command()
@limit_option
@common_options
@click.pass_obj
def operations(options: Options, limit: int) -> None:
    """Show retries and cancellations by filter, the newest first."""
    with options.client() as client:
        found = list(client.admin.operations(limit=limit))
    header = ("ID", "ACTION", "STATUS", "PROMPTS", "BY", "FILTER")
    options.output.results(found, header, tables.operation_row)


@click.command()
@_id
@click.option("--wait", is_flag=True, help="Wait until it has ended.")
@common_options
@click.pass_obj
def operation(options: Options, operation_id: int, wait: bool) -> None:
    """Show an operation and its progress."""
    with options.client() as client:
        found = _wait(options, client, operation_id) if wait else client.admin.operation(operation_id)
    options.output.result(found, tables.operation_text(found))


@click.command()
@_id
@common_options
@click.pass_obj
def undo(options: Options, operation_id: int) -> None:
    """Stop an operation, and undo retries that have not started.

    Prompts that were retried, and that no worker has started since, are as before. Cancelled prompts stay cancelled.
    """
    with options.client() as client:
        client.admin.undo(operation_id)
        found = _wait(options, client, operation_id)
    options.output.result(found, tables.operation_text(found))


def user_id(client: Client, username: str) -> int:
    """The id of a user. Raises click.BadParameter if there is none of this name."""
    for user in client.admin.users(username=username):
        return int(user["id"])
    raise click.BadParameter(f"There is no user {username!r}.", param_hint="--user")


def _wait(options: Options, client: Client, operation_id: int) -> Resource:
    try:
        with options.time_limit(), _progress_bar(options) as on_progress:
            return client.admin.wait(operation_id, on_progress)
    except (KeyboardInterrupt, TimeLimitReached):
        options.output.note(f"The operation continues. `promptwire admin undo {operation_id}` stops it.")
        raise


@contextmanager
def _progress_bar(options: Options) -> Iterator[Callable[[Resource], None]]:
    """Shows how many prompts were changed, if stderr is a terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console = options.output.stderr
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)

        def update(operation: Resource) -> None:
            done = operation["changed"] + operation["skipped"]
            progress.update(task, description=operation["status"], total=operation["total"], completed=done)

        yield update
