"""What our commands have in common: how they fail."""

import sys

import click
from sqlalchemy.exc import OperationalError

from shared.errors import PromptwireError


def run(command: click.Command) -> None:
    """Runs a command, and ends the process with a sentence if it fails."""
    try:
        command.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit("Aborted.")
    except PromptwireError as error:
        sys.exit(f"Error: {error}")
    except OperationalError as error:
        sys.exit(f"Error: the database cannot be used (does it run?): {str(error.orig).strip()}")
