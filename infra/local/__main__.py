"""`python -m infra.local up`, `backup [FILE]`, `restore FILE [--replace]`, or `run COMMAND…`.

`run` runs a command with the settings of the running stack.
"""

import contextlib
import errno
import os
import sys
from pathlib import Path

from dotenv import dotenv_values, load_dotenv

from infra.doctor.settings import exposed_secrets
from infra.local.backup_commands import run_backup, run_restore
from infra.local.errors import CannotStartError
from infra.local.options import Options, data_dir
from infra.local.up import Stack

_BACKUP = {"backup": run_backup, "restore": run_restore}


def main(arguments: list[str]) -> int:
    with contextlib.suppress(OSError, UnicodeDecodeError):  # `load_settings` says that it cannot be read
        load_dotenv(".env")
    try:
        if arguments == ["up"]:
            options = Options.from_environment()
            if exposed_secrets(Path(".env")):
                print(".env has secrets, and other users of this machine may read it: chmod 600 .env", file=sys.stderr)
            return 0 if Stack(options).run() else 1
        if arguments and arguments[0] in _BACKUP:
            _BACKUP[arguments[0]](arguments[1:])
            return 0
        if len(arguments) > 1 and arguments[0] == "run":
            _run(arguments[1:])
        print(__doc__, file=sys.stderr)
        return 2
    except CannotStartError as error:
        return _fail(str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _fail(f"The disk is full ({error.strerror}): free some space for DATA_DIR={data_dir()}.")


def _fail(message: str) -> int:
    with contextlib.suppress(OSError):  # nobody reads it
        print(f"\n{message}", file=sys.stderr)
    return 1


def _run(command: list[str]) -> None:
    """Replace this process with the command."""
    file = data_dir() / "env"
    if not file.exists() or file.stat().st_size == 0:
        raise CannotStartError(f"{file} is missing or empty: start the stack with `make up`, which writes it.")
    stack = {name: value or "" for name, value in dotenv_values(file).items()}
    environment = stack | {name: value for name, value in os.environ.items() if value}
    os.execvpe(command[0], command, environment)  # noqa: S606


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
