"""`python -m infra.local up`, and `python -m infra.local run COMMAND…` with the settings of the running stack."""

import contextlib
import os
import sys
from pathlib import Path

from dotenv import dotenv_values, load_dotenv

from infra.doctor.settings import exposed_secrets
from infra.local.errors import CannotStartError
from infra.local.options import Options
from infra.local.up import Stack


def main(arguments: list[str]) -> int:
    with contextlib.suppress(OSError, UnicodeDecodeError):  # `load_settings` says that it cannot be read
        load_dotenv(".env")
    try:
        if arguments == ["up"]:
            options = Options.from_environment()
            if exposed_secrets(Path(".env")):
                print(".env has secrets, and other users of this machine may read it: chmod 600 .env", file=sys.stderr)
            Stack(options).run()
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
