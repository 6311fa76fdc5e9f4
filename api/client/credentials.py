"""Who logs in, and with which password: never from an argument, which others could see and shells remember."""

import json
import os
import sys
from typing import TextIO

import click

PASSWORD_VARIABLE = "PROMPTWIRE_PASSWORD"  # noqa: S105  # nosec B105


def gather(
    username: str | None, credentials: TextIO | None, password_file: TextIO | None, *, confirm: bool = False
) -> tuple[str, str]:
    """A username and a password: from files, from the environment, from a terminal without echo, or from stdin.

    Raises click.UsageError if one is missing.
    """
    if credentials is not None:
        if username is not None or password_file is not None:
            raise click.UsageError("--credentials has username and password: give nothing besides.")
        return _of_file(credentials)
    is_terminal = sys.stdin.isatty()
    if username is None:
        if not is_terminal:
            raise click.UsageError("A username is needed: as an argument, or in --credentials.")
        username = click.prompt("Username", err=True)
    if password_file is not None:
        password = password_file.readline()
    elif given := os.environ.get(PASSWORD_VARIABLE):
        password = given
    elif is_terminal:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True)
    else:
        password = sys.stdin.readline()
    password = password.rstrip("\r\n")
    if not password:
        raise click.UsageError(f"A password is needed: on stdin, in --password-file, or in {PASSWORD_VARIABLE}.")
    return str(username), password


def _of_file(file: TextIO) -> tuple[str, str]:
    try:
        found = json.load(file)
        username, password = found["username"], found["password"]
    except (ValueError, KeyError, TypeError):
        username = password = None
    if not isinstance(username, str) or not isinstance(password, str):
        raise click.UsageError(f"{file.name} is no JSON object with username and password.")
    return username, password
