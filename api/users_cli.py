"""User management, for where registration is closed: `promptwire-users create alice`.

From a checkout: `python -m api.users_cli create alice`.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from shared import timestamps
from shared.accounts import audit, names, users
from shared.accounts import export as account_export
from shared.accounts.audit import COMMAND_LINE
from shared.cli_errors import run
from shared.db.engine import Sessions, make_engine, make_sessions
from shared.db.models import User
from shared.messaging.announcements import Announcer
from shared.messaging.redis import make_redis
from shared.settings import SettingsError, load_settings
from shared.version import get_version


def _ask_password(_: click.Context, __: click.Parameter, password: str | None) -> str:
    if password is not None:
        return password
    if not sys.stdin.isatty():
        raise click.UsageError("Give a password in NEW_PASSWORD, or run the command in a terminal.")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))


_Password = click.option(
    "--password",
    envvar="NEW_PASSWORD",
    callback=_ask_password,
    help="By default NEW_PASSWORD of the environment; without it, the command asks.",
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
@click.option("--admin", is_flag=True, help="Make the user an admin.")
@click.option("--viewer", is_flag=True, help="Let the user see what admins see, and change nothing.")
@click.pass_obj
def create(sessions: Sessions, username: str, password: str, *, admin: bool, viewer: bool) -> None:
    """Add a user."""
    with _sentences():
        username, password = names.new_username(username), names.new_password(password)
    with sessions.begin() as session:
        user = users.create(session, username, users.hash_password(password), is_admin=admin, is_viewer=viewer)
        roles = {"is_admin": admin} | ({"is_viewer": True} if viewer else {})
        audit.record(session, COMMAND_LINE, "user.created", user.id, **roles)
    click.echo(f"Created {', '.join([f'{user.username} (id {user.id}', *_roles(user)])}).")


@main.command()
@click.argument("username")
@_Password
@click.pass_obj
def set_password(sessions: Sessions, username: str, password: str) -> None:
    """Change a password. All logins of the user end."""
    with _sentences():
        password = names.new_password(password)
    with sessions.begin() as session:
        user_id = users.set_password(session, username, users.hash_password(password))
        audit.record(session, COMMAND_LINE, "password.changed", user_id)
    _announce_change(user_id)
    click.echo(f"Changed the password of {username}.")


@main.command()
@click.argument("username")
@click.option("--remove", is_flag=True, help="Make an admin a user again.")
@click.pass_obj
def set_admin(sessions: Sessions, username: str, *, remove: bool) -> None:
    """Make a user an admin. It takes effect at once."""
    _set_roles(sessions, username, is_admin=not remove)
    click.echo(f"{username} is {'no longer an admin' if remove else 'an admin'}.")


@main.command()
@click.argument("username")
@click.option("--remove", is_flag=True, help="Make a viewer a user again.")
@click.pass_obj
def set_viewer(sessions: Sessions, username: str, *, remove: bool) -> None:
    """Let a user see what admins see, and change nothing. It takes effect at once."""
    _set_roles(sessions, username, is_viewer=not remove)
    click.echo(f"{username} is {'no longer a viewer' if remove else 'a viewer'}.")


def _set_roles(sessions: Sessions, username: str, **roles: bool) -> None:
    with sessions.begin() as session:
        user = users.find_existing(session, username)
        for act in users.set_roles(user, **roles):
            audit.record(session, COMMAND_LINE, act, user.id)
        user_id = user.id
    _announce_change(user_id)


def _roles(user: User) -> list[str]:
    return [name for name, has in (("admin", user.is_admin), ("viewer", user.is_viewer)) if has]


@main.command("list")
@click.pass_obj
def list_users(sessions: Sessions) -> None:
    """List all users: id, username, created at, and `admin` or `viewer` for those who are."""
    with sessions() as session:
        for user in users.list_all(session):
            fields = [str(user.id), user.username, timestamps.rfc3339(user.created_at)]
            click.echo("\t".join([*fields, *_roles(user)]))


@main.command()
@click.argument("username")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_obj
def delete(sessions: Sessions, username: str, yes: bool) -> None:
    """Delete a user with all prompts, answers and keys, for good."""
    user = _find(sessions, username)
    if not yes:
        click.confirm(
            f"Delete {user.username} (id {user.id}) with all prompts, answers and keys, for good?", abort=True
        )
    _delete(sessions, user.id)
    click.echo(f"Deleted {user.username}. The workers purge what is left.")


@main.command()
@click.argument("username")
@click.pass_obj
def export(sessions: Sessions, username: str) -> None:
    """Write all prompts of a user to stdout, as JSON Lines: as GET /account/export/ does."""
    from api.http.export import json_lines  # here, because the API's schemas take half a second to load

    user = _find(sessions, username)
    with sessions.begin() as session:
        audit.record(session, COMMAND_LINE, "account.exported", user.id)
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


def _delete(sessions: Sessions, user_id: int) -> None:
    # Here, because Celery takes longer to load than most of the other commands take.
    from shared.accounts import deletion
    from shared.messaging.partial_text import PartialText
    from shared.messaging.queue import Queue, make_celery

    with sessions.begin() as session:
        deleted = deletion.delete(session, user_id, COMMAND_LINE)
    settings = load_settings()
    redis = make_redis(settings)
    deletion.announce(
        deleted,
        PartialText(redis, settings.partial_text_lifetime),
        Queue(make_celery(settings), redis),
        end_logins=Announcer(redis).login_ended,
    )


def _announce_change(user_id: int) -> None:
    """Make all processes forget the user's tokens. (Without Redis they notice the change in the database.)"""
    Announcer(make_redis(load_settings())).login_ended(user_id)


@contextmanager
def _sentences() -> Iterator[None]:
    """Show the message of a ValueError instead of a traceback."""
    try:
        yield
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def cli() -> None:
    """Run the `promptwire-users` command."""
    run(main)


if __name__ == "__main__":
    cli()
