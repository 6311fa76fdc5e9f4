"""The commands that explain: `promptwire help` and `promptwire completion`."""

import sys
from typing import Literal

import click
from click.shell_completion import get_completion_class

#: By this variable the shell's script asks for completions.
COMPLETION_VARIABLE = "_PROMPTWIRE_COMPLETE"

#: What stands below the list of commands.
SECTIONS = """\b
Examples:
  promptwire login alice
  promptwire submit --wait "Explain what causes ocean tides"
  promptwire help submit

\b
Environment:
  PROMPTWIRE_URL           the server's URL
  PROMPTWIRE_API_KEY       an API key, which is used instead of a login
  PROMPTWIRE_PASSWORD      the password, for login, register and account
  PROMPTWIRE_NEW_PASSWORD  the new password, for account password
  XDG_STATE_HOME           where logins are stored, ~/.local/state by default
  NO_COLOR                 if it is set, nothing is coloured

\b
Files:
  $XDG_STATE_HOME/promptwire/*.json  the login at each server, readable by you alone

\b
Exit codes:
  0    success
  1    the prompt failed or was cancelled
  2    wrong arguments
  3    the API refuses: not found, conflict, invalid
  4    not logged in, or the API key is not valid
  5    the server cannot be reached, or is too busy, after all retries
  70   a fault of this program, or a response that it does not understand
  124  the command, or what it waits for, took longer than --timeout
  130  interrupted
"""


@click.command("help")
@click.argument("path", metavar="[COMMAND]...", nargs=-1)
@click.pass_context
def help_command(context: click.Context, path: tuple[str, ...]) -> None:
    """Show the manual, or the help of a COMMAND."""
    shown = context.find_root()
    for name in path:
        command = shown.command.get_command(shown, name) if isinstance(shown.command, click.Group) else None
        if command is None:
            raise click.UsageError(f"There is no command {' '.join(path)!r}.", context)
        shown = click.Context(command, parent=shown, info_name=name)
    text = f"{shown.get_help()}\n"
    if sys.stdout.isatty():
        click.echo_via_pager(text)
    else:
        click.echo(text, nl=False)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print the completion script for a SHELL.

    It completes commands and options of the installed `promptwire`. Store it where your shell looks for such
    scripts, as in the examples.
    """
    completer = get_completion_class(shell)
    if completer is None:
        raise click.UsageError(f"Completion for {shell} is not available.")
    click.echo(completer(context.find_root().command, {}, "promptwire", COMPLETION_VARIABLE).source())
