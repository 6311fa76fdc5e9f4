"""Checks of the settings: secrets, profile, and times that depend on each other."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import DotEnvSettingsSource
from sqlalchemy.engine import make_url

from infra.doctor import Finding, Severity
from shared.settings import MIN_SECRET_LENGTH, Settings, database_url, model_routes

#: Settings, and two that only Compose reads.
_SECRETS = {name for name, field in Settings.model_fields.items() if field.annotation is SecretStr} | {
    "postgres_password",
    "flower_password",
}
_LOCAL = {None, "localhost", "127.0.0.1", "::1"}
#: Placeholder passwords that people forget to replace.
_PLACEHOLDERS = ("password", "changeme", "change-me", "secret", "postgres", "redis", "promptwire", "admin")


def secrets(settings: Settings) -> Iterator[Finding]:
    """Secrets are set, long, and not placeholders."""
    make_one = "python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
    if len(settings.jwt_secret_key.get_secret_value()) < MIN_SECRET_LENGTH:
        yield Finding(
            "JWT_SECRET_KEY is short: an attacker who guesses it can log in as any user.",
            f"Set it to the output of: {make_one}",
        )
    database = database_url.parse(settings.database_url.get_secret_value())
    redis_url = make_url(settings.redis_url.get_secret_value())
    for name, url, hosts in (
        ("database_url", database.url, database.host_names),
        ("redis_url", redis_url, [redis_url.host]),
    ):
        password = str(url.password or "")
        if not password and not _LOCAL.issuperset(hosts):
            yield Finding(f"{name.upper()} has no password.", "Set a password on the server, and add it to the URL.")
        elif password.lower() in _PLACEHOLDERS:
            yield Finding(f"{name.upper()} has a password that is easy to guess.", f"Set another one: {make_one}")


def exposed_secrets(file: Path) -> list[str]:
    """The names of the secrets in a dotenv file that others than its owner may read."""
    try:
        is_private = not file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    except OSError:
        return []
    found = {} if is_private else DotEnvSettingsSource(Settings, env_file=file).env_vars
    keys = model_routes.key_names(os.environ.get("MODELS_FILE") or found.get("models_file") or "")
    names = _SECRETS | {name.lower() for name in keys}
    return sorted(name.upper() for name, value in found.items() if value and name in names)


def dotenv_file(_: Settings) -> Iterator[Finding]:
    """Only its owner may read `.env`, if it has secrets."""
    if names := exposed_secrets(Path(".env")):
        yield Finding(
            f".env has secrets ({', '.join(names)}), and other users of this machine may read it.",
            "Run: chmod 600 .env",
            Severity.BEWARE,
        )


def profile(settings: Settings) -> Iterator[Finding]:
    """The profile is production, and no setting lets others in."""
    if settings.app_env != "prod":
        yield Finding(
            f"APP_ENV is {settings.app_env}: unsafe settings are accepted, and anyone can register.",
            "Set APP_ENV=prod if others can reach this installation.",
            Severity.BEWARE,
        )
    if settings.ws_room_auth == "open":
        yield Finding("WS_ROOM_AUTH=open lets anyone read all users' answers.", "Set WS_ROOM_AUTH=token.")
    if "*" in settings.allowed_origins:
        yield Finding(
            "ALLOWED_ORIGINS=* lets any web page use the API with a user's token.", "List the origins of your pages."
        )


def timeouts(settings: Settings) -> Iterator[Finding]:
    """Times that depend on each other are in the right order."""
    for smaller, larger, why in (
        (
            "reaper_seconds",
            "lease_seconds",
            "otherwise a prompt whose worker died waits long after its lease has expired",
        ),
        ("reaper_seconds", "submit_grace_seconds", "otherwise the reaper searches too rarely for lost messages"),
        (
            "openai_timeout_seconds",
            "generation_timeout_seconds",
            "otherwise an attempt ends before its request to the provider times out",
        ),
        ("retry_backoff_seconds", "provider_patience_seconds", "otherwise a prompt fails during its first pause"),
    ):
        if getattr(settings, smaller) >= getattr(settings, larger):
            yield Finding(
                f"{smaller.upper()} ({getattr(settings, smaller):g}) must be less than {larger.upper()} "
                f"({getattr(settings, larger):g}): {why}.",
                f"Lower {smaller.upper()} or raise {larger.upper()}.",
            )
    if settings.lease_seconds < 10:
        yield Finding(
            f"LEASE_SECONDS is {settings.lease_seconds:g}: a worker that stalls for that time loses its prompts.",
            "Set it to 30 or more.",
            Severity.BEWARE,
        )
