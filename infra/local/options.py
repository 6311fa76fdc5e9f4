"""What `make up` reads before it starts anything."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from infra.local.errors import CannotStartError
from infra.local.preflight import DEFAULTS
from shared.settings import Settings, SettingsError, load_settings
from shared.settings.values import bracketed
from worker import prerequisites

#: Instead of what the stack sets later, when it has its own servers.
_LATER = {
    "database_url": "postgresql://127.0.0.1/later",
    "redis_url": "redis://127.0.0.1",
    "jwt_secret_key": secrets.token_urlsafe(),
}


@dataclass(frozen=True)
class Options:
    """Where the stack listens, and keeps its data."""

    host: str
    port: int
    flower_port: int
    data_dir: Path

    @classmethod
    def from_environment(cls) -> "Options":
        """Read all settings, and try what they name.

        Raises:
            CannotStartError: one of them cannot work. No process has been started in vain then.
        """
        try:
            settings = load_settings(**_LATER)
            prerequisites.check(settings)  # a worker would be restarted again and again
        except SettingsError as error:
            raise CannotStartError(str(error)) from error
        if settings.worker_metrics_port in (settings.port, settings.flower_port):
            raise CannotStartError(
                "WORKER_METRICS_PORT is the same as PORT or FLOWER_PORT: set it to another port, or unset it."
            )
        return cls(settings.listen_address, settings.port, settings.flower_port, data_dir())

    def url(self, port: int) -> str:
        """Where this machine reaches a server of the stack."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://{bracketed(host)}:{port}"


def data_dir() -> Path:
    """The folder of the stack's data: DATA_DIR, or its default."""
    return Path(os.environ.get("DATA_DIR") or DEFAULTS["DATA_DIR"])


def load_with(environment: dict[str, str]) -> Settings:
    """Load the settings that processes in this environment will have. Raises CannotStartError."""
    os.environ.update(environment)
    try:
        return load_settings()
    except SettingsError as error:
        raise CannotStartError(str(error)) from error
