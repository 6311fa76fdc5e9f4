"""Whether the settings fit each other."""

from collections.abc import Iterator

from sqlalchemy.engine import make_url

from infra.doctor import Finding, Severity
from shared.settings import MIN_SECRET_LENGTH, Settings

#: What people forget to replace.
_PLACEHOLDERS = ("password", "changeme", "change-me", "secret", "postgres", "redis", "promptwire", "admin")


def secrets(settings: Settings) -> Iterator[Finding]:
    make_one = "python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
    if len(settings.jwt_secret_key.get_secret_value()) < MIN_SECRET_LENGTH:
        yield Finding(
            "JWT_SECRET_KEY is short: whoever guesses it can be anybody.", f"Set it to the output of: {make_one}"
        )
    for name in ("database_url", "redis_url"):
        url = make_url(getattr(settings, name).get_secret_value())
        password = str(url.password or "")
        if not password and url.host not in (None, "localhost", "127.0.0.1", "::1"):
            yield Finding(f"{name.upper()} has no password.", "Give the server one, and put it into the URL.")
        elif password.lower() in _PLACEHOLDERS:
            yield Finding(f"{name.upper()} has a password that anybody would try.", f"Make another: {make_one}")


def profile(settings: Settings) -> Iterator[Finding]:
    if settings.app_env != "prod":
        yield Finding(
            f"APP_ENV is {settings.app_env}: unsafe settings are not refused, and anybody may register.",
            "Set APP_ENV=prod where others can reach it.",
            Severity.BEWARE,
        )
    if settings.ws_room_auth == "open":
        yield Finding("WS_ROOM_AUTH=open lets anybody read everybody's answers.", "Set WS_ROOM_AUTH=token.")
    if "*" in settings.allowed_origins:
        yield Finding(
            "ALLOWED_ORIGINS=* lets any web page use the API with a user's token.", "List the origins of your pages."
        )


def timeouts(settings: Settings) -> Iterator[Finding]:
    """The order that the times must have."""
    for smaller, larger, why in (
        (
            "reaper_seconds",
            "lease_seconds",
            "a prompt whose worker died would wait for long after its lease has lapsed",
        ),
        ("reaper_seconds", "submit_grace_seconds", "the reaper would look too seldom for messages that were lost"),
        (
            "openai_timeout_seconds",
            "generation_timeout_seconds",
            "an attempt would be ended before its provider is given up",
        ),
        ("retry_backoff_seconds", "provider_patience_seconds", "a prompt would not outlast the first pause"),
    ):
        if getattr(settings, smaller) >= getattr(settings, larger):
            yield Finding(
                f"{smaller.upper()} ({getattr(settings, smaller):g}) must be less than {larger.upper()} "
                f"({getattr(settings, larger):g}): {why}.",
                f"Lower {smaller.upper()} or raise {larger.upper()}.",
            )
    if settings.lease_seconds < 10:
        yield Finding(
            f"LEASE_SECONDS is {settings.lease_seconds:g}: a worker that is held up for so long loses its work.",
            "Set it to 30 or more.",
            Severity.BEWARE,
        )
