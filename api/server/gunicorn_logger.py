"""gunicorn's error log, in the format of all other logs."""

import contextlib
import logging
import re
from typing import Any

from gunicorn import glogging


class GunicornLogger(glogging.Logger):  # type: ignore[misc]
    """gunicorn's logger, with our formatter and without the content of malformed requests."""

    def setup(self, cfg: Any) -> None:
        # Imported here: gunicorn loads this module before gevent has patched the libraries that settings load.
        from shared.settings import SettingsError, load_settings
        from shared.telemetry import logs

        super().setup(cfg)
        with contextlib.suppress(SettingsError):  # the application reports it
            settings = load_settings()
            self.error_log.setLevel(settings.log_level)
            formatter = logs.formatter(settings)
            for handler in self.error_log.handlers:
                handler.setFormatter(formatter)

    def info(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log where the API listens; the rest of what gunicorn says about its start and stop only when debugging."""
        if msg.startswith("Listening at") or self.error_log.isEnabledFor(logging.DEBUG):
            super().info(msg, *args, **kwargs)

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log a warning without what a client sent: a malformed request may hold a token or a part of a prompt."""
        super().warning(re.sub(r"(?s)^(Invalid request from ip=\S+): .*", r"\1", msg), *args, **kwargs)
