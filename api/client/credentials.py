"""The username and the password of a login. A password is never an argument: others could see it, shells store it."""

import json
import os
import sys
from typing import TextIO

import click

from .options import READ_FILE

PASSWORD_VARIABLE = "PROMPTWIRE_PASSWORD"  # noqa: S105  # nosec B105
NEW_PASSWORD_VARIABLE = "PROMPTWIRE_NEW_PASSWORD"  # noqa: S105  # nosec B105

password_file_option = click.option("--password-file", type=READ_FILE, help="A file whose first line is the password.")


def read_credentials(
    username: str | None, credentials: TextIO | None, password_file: TextIO | None, *, confirm: bool = False
) -> tuple[str, str]:
    """Read them from files, from the environment, from a terminal without echo, or from stdin.

    Raises click.UsageError if one of them is missing.
    """
    if credentials is not None:
        if username is not None or password_file is not None:
            raise click.UsageError(
                "--credentials already has a username and a password: leave out NAME and --password-file."
            )
        return _from_file(credentials)
    if username is None:
        if not sys.stdin.isatty():
            raise click.UsageError("Give a username, as an argument or in --credentials.")
        username = click.prompt("Username", err=True)
    return str(username), read_password("Password", PASSWORD_VARIABLE, password_file, confirm=confirm)


def read_password(label: str, variable: str, password_file: TextIO | None, *, confirm: bool = False) -> str:
    """Read a password from a file, from an environment variable, from a terminal without echo, or from stdin.

    Raises click.UsageError if it is missing.
    """
    if password_file is not None:
        password = password_file.readline()
    elif from_environment := os.environ.get(variable):
        password = from_environment
    elif sys.stdin.isatty():
        password = click.prompt(label, hide_input=True, confirmation_prompt=confirm, err=True)
    else:
        password = sys.stdin.readline()
    password = password.rstrip("\r\n")
    if not password:
        raise click.UsageError(f"Give a password, on stdin, in --password-file or in {variable}.")
    return str(password)


def _from_file(file: TextIO) -> tuple[str, str]:
    try:
        content = json.load(file)
        username, password = content["username"], content["password"]
    except (ValueError, KeyError, TypeError):
        username = password = None
    if not isinstance(username, str) or not isinstance(password, str):
        raise click.UsageError(f'{file.name} must be a JSON object: {{"username": …, "password": …}}.')
    return username, password
