"""The `promptwire` command: the client, or what to install where the client's packages are missing."""

import sys

from shared.version import get_version


def cli() -> None:
    """Run the client. Without the extra `client`, only `--version` works."""
    try:
        from api.client.__main__ import run
    except ModuleNotFoundError as error:
        if "--version" in sys.argv:
            print(f"promptwire, version {get_version()}")  # noqa: T201
            return
        sys.exit(
            f"promptwire needs the package {error.name}, which is not installed. "
            'Install Promptwire with its extra: pip install ".[client]"'
        )
    sys.exit(run())
