"""Users by command line, for where registration is off: `promptwire-users create alice`.

From a checkout: `python -m api.users_cli create alice`.
"""

import click

from shared import timestamps
from shared.accounts import users
from shared.cli_errors import run
from shared.db.engine import Sessions, make_engine, make_sessions
from shared.messaging.announcements import Announcer
from shared.messaging.redis import make_redis
from shared.settings import SettingsError, load_settings
from shared.version import get_version

_Password = click.option(
    "--password",
    envvar="NEW_PASSWORD",
    prompt=True,
    hide_input=True,
    confirmation_prompt=True,
    help="Asked for if not given. NEW_PASSWORD in the environment is taken, too.",
)


@click.group()
@click.version_option(get_version(), prog_name="promptwire-users")
@click.pass_context
def main(context: click.Context) -> None:
    """Users of this Promptwire."""
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
    """Change a password; every login of that user ends."""
    _check(username, password)
    with sessions.begin() as session:
        user_id = users.set_password(session, username, users.hash_password(password))
    Announcer(make_redis(load_settings())).login_ended(user_id)
    click.echo(f"Changed the password of {username}.")


@main.command("list")
@click.pass_obj
def list_users(sessions: Sessions) -> None:
    """Show everybody: id, username, since when."""
    with sessions() as session:
        for user in users.everybody(session):
            click.echo(f"{user.id}\t{user.username}\t{timestamps.rfc3339(user.created_at)}")


def _check(username: str, password: str) -> None:
    problem = users.validate(username, password)
    if problem is not None:
        raise click.ClickException(problem)


def cli() -> None:
    """Run the `promptwire-users` command."""
    run(main)


if __name__ == "__main__":
    cli()
