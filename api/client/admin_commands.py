"""The commands for admins: `promptwire admin --help`."""

from typing import Any, get_args

import click

from . import admin_tables as tables
from .admin import AdminUsageBy
from .operation_commands import cancel, limit_option, operation, operations, retry, undo, user_id
from .options import Integer, Options, common_options
from .request_options import usage_options
from .usage_table import usage_text


@click.group()
@common_options
def admin() -> None:
    """See and change the data of all users. For admins; viewers can only see it."""


_model = click.argument("model")
_of_user = click.option("--user", metavar="NAME", help="Only those of this user.")


@admin.command()
@common_options
@click.pass_obj
def overview(options: Options) -> None:
    """Show queued and running prompts, by model and by user."""
    with options.client() as client:
        queue = client.admin.queue()
    options.output.result(queue, tables.overview_text(queue))


@admin.command()
@common_options
@click.pass_obj
def running(options: Options) -> None:
    """Show the prompts that are being answered, the oldest first."""
    with options.client() as client:
        found = client.admin.queue()["running"]
    options.output.results(found, ("ID", "ATTEMPT", "QUEUED", "LEASED UNTIL", "MODEL", "USER"), tables.running_row)


@admin.command()
@click.option("--since", metavar="TIME", help="Only later ones.  [the last 24 hours]")
@common_options
@click.pass_obj
def failures(options: Options, since: str | None) -> None:
    """Show failures by their error, the most frequent first."""
    with options.client() as client:
        found = client.admin.failures(since=since)
    options.output.results(found, ("COUNT", "USERS", "LAST", "MODEL", "ERROR"), tables.failure_row)


@admin.command()
@common_options
@click.pass_obj
def workers(options: Options) -> None:
    """Show the worker hosts."""
    with options.client() as client:
        found = client.admin.workers()
    options.output.results(found, ("HOST", "PID", "STATE", "TASKS", "STARTED", "MODELS"), tables.worker_row)


@admin.command()
@common_options
@click.pass_obj
def models(options: Options) -> None:
    """Show the models, and whether they are paused or unavailable."""
    with options.client() as client:
        found = client.admin.models()
    options.output.results(found, ("MODEL", "STATE"), tables.model_row)


@admin.command()
@_model
@click.option("--reason", help="The reason, which users see whose prompts wait.")
@common_options
@click.pass_obj
def pause(options: Options, model: str, reason: str | None) -> None:
    """Start no prompt of MODEL until it is resumed.

    Queued prompts wait; those that are being answered go on.
    """
    with options.client() as client:
        options.output.result(client.admin.pause(model, reason), f"{model} is paused.")


@admin.command()
@_model
@common_options
@click.pass_obj
def resume(options: Options, model: str) -> None:
    """Resume MODEL."""
    with options.client() as client:
        options.output.result(client.admin.resume(model), f"{model} is resumed.")


@admin.command()
@click.option("--name", metavar="NAME", help="Only this user.")
@limit_option
@common_options
@click.pass_obj
def users(options: Options, name: str | None, limit: int) -> None:
    """Show the users, the newest first."""
    with options.client() as client:
        found = list(client.admin.users(username=name, limit=limit))
    header = ("ID", "ROLE", "CREATED", "UNFINISHED", "TOKENS THIS MONTH", "USER")
    options.output.results(found, header, tables.user_row)


@admin.command()
@_of_user
@click.option("--revoke", metavar="ID", type=Integer(1), help="Revoke this key for good.")
@limit_option
@common_options
@click.pass_obj
def keys(options: Options, user: str | None, revoke: int | None, limit: int) -> None:
    """Show API keys of all users, the newest first."""
    with options.client() as client:
        if revoke is not None:
            client.admin.revoke_key(revoke)
            options.output.note(f"Key {revoke} was revoked.")
            return
        found = list(client.admin.keys(user=None if user is None else user_id(client, user), limit=limit))
    options.output.results(found, ("ID", "PREFIX", "STATE", "LAST USED", "USER", "NAME"), tables.key_row)


@admin.command()
@usage_options(get_args(AdminUsageBy), default="user")
@common_options
@click.pass_obj
def usage(options: Options, query: dict[str, Any]) -> None:
    """Show the tokens and the cost of all users' prompts."""
    with options.client() as client:
        report = client.admin.usage(**query)
    options.output.result(report, usage_text(report))


@admin.command()
@_of_user
@limit_option
@common_options
@click.pass_obj
def audit(options: Options, user: str | None, limit: int) -> None:
    """Show the audit trail: who did what to whom, the newest first."""
    with options.client() as client:
        found = list(client.admin.audit(user=None if user is None else user_id(client, user), limit=limit))
    options.output.results(found, ("TIME", "WHO", "ACTION", "USER", "DETAILS"), tables.audit_row)


for _command in (retry, cancel, operations, operation, undo):
    admin.add_command(_command)
