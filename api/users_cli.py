"""User management, for where registration is closed: `promptwire-users create alice`.

From a checkout: `python -m api.users_cli create alice`.
"""

import sys

import click

from api.http.export import json_lines
from shared import timestamps
from shared.accounts import deletion, users
from shared.accounts import export as account_export
from shared.accounts.audit import COMMAND_LINE
from shared.accounts.deletion import DeletedAccount
from shared.cli_errors import run
from shared.db.engine import Sessions, make_engine, make_sessions
from shared.db.models import User
from shared.messaging.announcements import Announcer
from shared.messaging.partial_text import PartialText
from shared.messaging.queue import Queue, make_celery
from shared.messaging.redis import make_redis
from shared.settings import SettingsError, load_settings
from shared.version import get_version

_Password = click.option(
    "--password",
    envvar="NEW_PASSWORD",
    prompt=True,
    hide_input=True,
    confirmation_prompt=True,
    help="Prompted for if missing. NEW_PASSWORD in the environment sets it, too.",
)


@click.group()
@click.version_option(get_version(), prog_name="promptwire-users")
@click.pass_context
def main(context: click.Context) -> None:
    """Manage the users of this Promptwire."""
    try:
        settings = load_settings()
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    context.obj = make_sessions(make_engine(settings, application_name="promptwire-cli"))


@main.command()
@click.argument("username")
@_Password
@click.pass_obj
def create(sessions: Sessions, username: str, password: str) -> None:
    """Add a user."""
    _check(username, password)
    with sessions.begin() as session:
        user = users.create(session, username, users.hash_password(password))
    click.echo(f"Created {user.username} (id {user.id}).")


@main.command()
@click.argument("username")
@_Password
@click.pass_obj
def set_password(sessions: Sessions, username: str, password: str) -> None:
    """Change a password. All logins of the user end."""
    _check(username, password)
    with sessions.begin() as session:
        user_id = users.set_password(session, username, users.hash_password(password))
    Announcer(make_redis(load_settings())).login_ended(user_id)
    click.echo(f"Changed the password of {username}.")


@main.command("list")
@click.pass_obj
def list_users(sessions: Sessions) -> None:
    """List all users: id, username, created at."""
    with sessions() as session:
        for user in users.list_all(session):
            click.echo(f"{user.id}\t{user.username}\t{timestamps.rfc3339(user.created_at)}")


@main.command()
@click.argument("username")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_obj
def delete(sessions: Sessions, username: str, yes: bool) -> None:
    """Delete a user with all prompts, answers and keys, for good."""
    user = _find(sessions, username)
    if not yes:
        click.confirm(f"Delete {user.username} (id {user.id}) and everything of theirs, for good?", abort=True)
    with sessions.begin() as session:
        deleted = deletion.delete(session, user.id, COMMAND_LINE)
    _announce_deletion(deleted)
    click.echo(f"Deleted {user.username}. The workers purge what is left.")


@main.command()
@click.argument("username")
@click.pass_obj
def export(sessions: Sessions, username: str) -> None:
    """Write all prompts of a user to stdout, as JSON Lines: as GET /account/export/ does."""
    user = _find(sessions, username)
    with sessions() as session:
        last = account_export.newest_id(session, user.id)
    after = 0
    while after < last:
        with sessions() as session:
            page = account_export.page(session, user.id, after=after, last=last)
        sys.stdout.buffer.write(json_lines(page, user.username))
        after = page[-1].prompt.id if page else last


def _find(sessions: Sessions, username: str) -> User:
    with sessions() as session:
        user = users.find(session, username)
    if user is None:
        raise click.ClickException(f"There is no user {username!r}.")
    return user


def _announce_deletion(deleted: DeletedAccount) -> None:
    settings = load_settings()
    redis = make_redis(settings)
    deletion.announce(
        deleted,
        PartialText(redis, settings.partial_text_lifetime),
        Queue(make_celery(settings), redis),
        end_logins=Announcer(redis).login_ended,
    )


def _check(username: str, password: str) -> None:
    try:
        users.check_username(username)
        users.check_password(password)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def cli() -> None:
    """Run the `promptwire-users` command."""
    run(main)


if __name__ == "__main__":
    cli()
