"""The commands of `promptwire account`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TextIO
from uuid import UUID

import click

from .credentials import NEW_PASSWORD_VARIABLE, PASSWORD_VARIABLE, password_file_option, read_password
from .file_commands import write
from .options import READ_FILE, Options, common_options
from .output import local_time, one_line
from .resources import Account, LoginEntry


@click.group()
@common_options
def account() -> None:
    """Your account: show, password, logins, export, delete."""


@account.command()
@common_options
@click.pass_obj
def show(options: Options) -> None:
    """Show your account and its limits.

    With an API key, also what the key may do.
    """
    with options.client() as client:
        found = client.account.show()
        options.output.result(found, _describe(found))


@account.command()
@password_file_option
@click.option("--new-password-file", type=READ_FILE, help="A file whose first line is the new password.")
@common_options
@click.pass_obj
def password(options: Options, password_file: TextIO | None, new_password_file: TextIO | None) -> None:
    """Change your password. All other logins end; API keys stay.

    The passwords come from the files, from PROMPTWIRE_PASSWORD and PROMPTWIRE_NEW_PASSWORD, a prompt without echo, or
    stdin, the current one first.
    """
    with options.client() as client:
        current = read_password("Current password", PASSWORD_VARIABLE, password_file)
        new = read_password("New password", NEW_PASSWORD_VARIABLE, new_password_file, confirm=True)
        client.account.change_password(current, new)
    options.output.note("The password was changed. All other logins have ended.")


@account.command()
@click.option("--end", metavar="ID", type=click.UUID, help="End this login.")
@common_options
@click.pass_obj
def logins(options: Options, end: UUID | None) -> None:
    """Show your logins, the last used first, or end one."""
    with options.client() as client:
        if end is not None:
            client.account.end_login(str(end))
            options.output.note(f"The login {end} has ended.")
            return
        options.output.results(client.account.logins(), ("ID", "LAST USED", "ADDRESS", "PROGRAM"), _row)


@account.command()
@click.option(
    "--output",
    "file",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True, path_type=Path),
    default="-",
    help="A file to write.  [stdout]",
)
@common_options
@click.pass_obj
def export(options: Options, file: Path) -> None:
    """Write all your prompts as lines of JSON, oldest first."""
    with options.client() as client:
        lines = client.account.export_lines()
        if str(file) == "-":
            options.output.lines(lines)
        else:
            write(file, lines)


@account.command()
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@password_file_option
@common_options
@click.pass_obj
def delete(options: Options, yes: bool, password_file: TextIO | None) -> None:
    """Delete your account with all prompts and answers, for good.

    The password comes from --password-file, PROMPTWIRE_PASSWORD, a prompt without echo, or stdin.
    """
    with options.client() as client:
        username = client.username
        if not yes:
            click.confirm(f"Delete {username} at {client.url} with all prompts, for good?", abort=True, err=True)
        client.account.delete(read_password("Password", PASSWORD_VARIABLE, password_file))
    options.output.note(f"The account {username} was deleted.")


def _describe(found: Account) -> str:
    head = f"{found['username']} (id {found['id']}), since {local_time(found['created_at'])}"
    role = ", admin" if found["is_admin"] else ", viewer" if found.get("is_viewer") else ""
    lines = [head + role, "", *_limits(found["limits"])]
    if key := found["key"]:
        models = "all" if key["models"] is None else " ".join(key["models"])
        own = {"models": models, "rate_limit": key["rate_limit"], "monthly_tokens": key["monthly_tokens"]}
        lines += ["", f"with API key {key['id']}: {' '.join(key['scopes'])}", "", *_limits(own)]
    return "\n".join(lines)


def _limits(limits: Mapping[str, str | int | None]) -> list[str]:
    return [f"{name:<22}  {'none' if value is None else value}" for name, value in limits.items()]


def _row(login: LoginEntry) -> tuple[str, str, str, str]:
    used = local_time(login["last_used_at"]) if login["last_used_at"] else "unknown"
    current = " (this one)" if login["is_current"] else ""
    return login["id"], used + current, login["address"] or "unknown", one_line(login["user_agent"] or "unknown")
