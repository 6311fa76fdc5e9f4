"""Error handling of the commands."""

import sys

import click
from sqlalchemy.exc import OperationalError

from shared.errors import PromptwireError


def run(command: click.Command) -> None:
    """Run a command. If it fails, exit with a sentence instead of a traceback."""
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
        sys.exit(f"Error: the database is unavailable (is it running?): {str(error.orig).strip()}")
