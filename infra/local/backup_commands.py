"""The commands `backup` and `restore` of `infra.local`, on the servers of a local stack or on those of DATABASE_URL."""

import argparse
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import FrameType

from dotenv import dotenv_values
from pydantic import SecretStr

from infra.local.backup import back_up, check, default_name, restore
from infra.local.data_folder import DataFolder
from infra.local.database import opened
from infra.local.errors import CannotStartError, FolderInUseError
from infra.local.options import data_dir, load_with
from infra.local.postgres_tools import PostgresTools
from infra.local.servers import Postgres
from shared.db import restored
from shared.settings import Settings, database_url

_START_SECONDS = 60


def run_backup(arguments: list[str]) -> None:
    """Write a backup to the file that is given, or to a new one in DATA_DIR/backups."""
    parser = argparse.ArgumentParser(prog="make backup", description=run_backup.__doc__)
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE")
    folder = DataFolder(data_dir())
    file = parser.parse_args(arguments).file or folder.path / "backups" / default_name()
    with _interruptible(), _database(folder, may_run=True) as settings:
        back_up(PostgresTools(settings.database_url.get_secret_value()), file)
    print(f"{file}: {file.stat().st_size:,} bytes. Copy it to another machine.")


def run_restore(arguments: list[str]) -> None:
    """Restore a backup, while the stack is stopped."""
    parser = argparse.ArgumentParser(prog="make restore FILE=…", description=run_restore.__doc__)
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--replace", action="store_true", help="Delete what the database has.")
    parser.add_argument("--revoke-keys", action="store_true", help="Revoke all API keys.")
    parser.add_argument("--disable-webhooks", action="store_true", help="Send nothing to webhooks.")
    given = parser.parse_args(arguments)
    options = {"revoke_keys": given.revoke_keys, "disable_webhooks": given.disable_webhooks}
    check(given.file)
    with _interruptible(), _database(DataFolder(data_dir()), may_run=False) as settings:
        tools = PostgresTools(settings.database_url.get_secret_value())
        restore(tools, given.file, prepare=lambda name: prepare(settings, name, **options), replace=given.replace)


def prepare(settings: Settings, database: str, **options: bool) -> None:
    """Prepare the restored database of this name for use, with the options of `restored.prepare`.

    Raises CannotStartError.
    """
    url = database_url.with_database(settings.database_url.get_secret_value(), database)
    changed = settings.model_copy(update={"database_url": SecretStr(url)})
    with opened(changed, "promptwire-restored") as engine:
        restored.prepare(engine, vector_store=settings.vector_store, **options)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Clean up on SIGTERM and SIGHUP, too. (SIGHUP may be ignored: `nohup` does that.)"""
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in previous.items():
        if handler is signal.SIG_DFL:
            signal.signal(number, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise CannotStartError("Interrupted.") from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _database(folder: DataFolder, *, may_run: bool) -> Iterator[Settings]:
    """The settings, while the server of their DATABASE_URL runs. `may_run` says whether the stack may run meanwhile."""
    given = os.environ.get("DATABASE_URL")
    with nullcontext(given) if given else _server_of(folder, may_run=may_run) as url:
        yield _settings(folder, url)


@contextmanager
def _server_of(folder: DataFolder, *, may_run: bool) -> Iterator[str]:
    """The URL of the stack's own PostgreSQL, which runs only for this if the stack is stopped."""
    with ExitStack() as stack:
        try:
            stack.enter_context(folder.locked())
        except FolderInUseError as error:
            if not may_run:
                raise CannotStartError(f"The stack on {folder.path} runs: stop `make up` first.") from error
            url = dotenv_values(folder.path / "env").get("DATABASE_URL")
            if not url:
                raise CannotStartError(f"The stack on {folder.path} is starting: try again in a minute.") from error
        else:
            url = stack.enter_context(_own_server(folder, may_create=not may_run))
        yield url


@contextmanager
def _own_server(folder: DataFolder, *, may_create: bool) -> Iterator[str]:
    """Run the PostgreSQL of a stopped stack. Yields its URL. The folder must be locked."""
    if not may_create and not Postgres.exists(folder.path / "postgres"):
        raise CannotStartError(f"{folder.path} has no database: there is nothing to back up.")
    folder.end_leftovers()
    server = Postgres.in_folder(folder)
    # In a session of its own, Ctrl-C does not stop it before what uses it.
    process = subprocess.Popen(
        server.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **server.popen
    )  # type: ignore[call-overload]
    try:
        folder.note_processes([process.pid])
        deadline = time.monotonic() + _START_SECONDS
        while not server.is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise CannotStartError(f"PostgreSQL did not start on {server.folder}: `make up` shows its log.")
            time.sleep(0.05)
        server.create_database()
        yield server.url()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _settings(folder: DataFolder, url: str) -> Settings:
    """The settings of the stack's processes. Raises CannotStartError."""
    needed = {"DATABASE_URL": url, "REDIS_URL": "redis://127.0.0.1", "JWT_SECRET_KEY": folder.secret("jwt")}
    return load_with(needed | {name: value for name, value in os.environ.items() if value})
