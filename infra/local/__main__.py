"""`python -m infra.local up`, `backup [FILE]`, `restore FILE [--replace]`, or `run COMMAND…`.

`run` runs a command with the settings of the running stack.
"""

import os
import sys
from pathlib import Path

from dotenv import dotenv_values, load_dotenv

from infra.local.backup_commands import run_backup, run_restore
from infra.local.errors import CannotStartError
from infra.local.up import Options, Stack

_BACKUP = {"backup": run_backup, "restore": run_restore}


def main(arguments: list[str]) -> int:
    load_dotenv(".env")
    try:
        if arguments == ["up"]:
            Stack(Options.from_environment()).run()
            return 0
        if arguments and arguments[0] in _BACKUP:
            _BACKUP[arguments[0]](arguments[1:])
            return 0
        if len(arguments) > 1 and arguments[0] == "run":
            _run(arguments[1:])
        print(__doc__, file=sys.stderr)
        return 2
    except CannotStartError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1


def _run(command: list[str]) -> None:
    """Replace this process with the command."""
    file = Path(os.environ.get("DATA_DIR", ".local")) / "env"
    if not file.exists():
        raise CannotStartError(f"{file} does not exist: start the stack once with `make up`.")
    stack = {name: value or "" for name, value in dotenv_values(file).items()}
    environment = stack | {name: value for name, value in os.environ.items() if value}
    os.execvpe(command[0], command, environment)  # noqa: S606


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
