"""Error handling of the commands."""

import sys

import click
from sqlalchemy.exc import SQLAlchemyError

from shared.db.engine import is_unavailable
from shared.errors import PromptwireError
from shared.settings import SettingsError


def run(command: click.Command) -> None:
    """Run a command. If it fails, exit with a sentence instead of a traceback."""
    try:
        command.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit("Aborted.")
    except (PromptwireError, SettingsError) as error:
        sys.exit(f"Error: {error}")
    except SQLAlchemyError as error:
        if not is_unavailable(error):
            raise
        sys.exit(f"Error: the database is unavailable (is it running?): {str(getattr(error, 'orig', error)).strip()}")
