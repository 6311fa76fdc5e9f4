"""Settings: one frozen, typed object, read from the environment and from `.env`.

Each setting stands in `.env.example` and in the README's table; `tests/unit/test_settings.py` holds that.
"""

from datetime import timedelta
from typing import Annotated, Literal, Self

from limits import parse_many
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MIN_SECRET_LENGTH = 32
_PLACEHOLDERS = ("change", "secret", "example", "password", "replace", "your-")


class SettingsError(Exception):
    """A setting is missing or wrong; the message has one line for each, saying which and what to do."""


class Settings(BaseSettings):
    """Everything that can be set. No secret has a default."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    app_env: Literal["dev", "prod", "test"] = "dev"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "console", "json"] = "auto"

    database_url: SecretStr
    database_pool_size: int = Field(10, ge=1)
    redis_url: SecretStr

    jwt_secret_key: SecretStr
    access_token_minutes: int = Field(15, ge=1)
    refresh_token_days: int = Field(30, ge=1)
    registration: bool | None = None
    trusted_proxies: int = Field(0, ge=0)
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    ws_room_auth: Literal["token", "open"] = "token"

    max_body_bytes: int = Field(1024 * 1024, ge=1024)
    prompt_rate_limit: str = "1/second;10/minute"
    backlog_limit: int = Field(5_000, ge=1)

    lease_seconds: float = Field(60, gt=0)
    reaper_seconds: float = Field(5, gt=0)
    submit_grace_seconds: float = Field(30, gt=0)
    max_attempts: int = Field(5, ge=1)
    retry_backoff_seconds: float = Field(2, ge=0)
    generation_timeout_seconds: int = Field(300, ge=1)
    soft_shutdown_seconds: float = Field(5, ge=0)

    generator: str = "simulated"
    simulated_delay: float = Field(0, ge=0)
    embedder: str = "hashing"
    previous_embedder: str = ""

    vector_store: Literal["faiss", "pgvector"] = "faiss"
    search_memory_mib: int = Field(256, ge=1)
    seal_from_vectors: int = Field(16_384, ge=256)
    segments_url: str = ""
    feed_retention_days: int = Field(30, ge=1)
    feed_check_seconds: float = Field(5, gt=0)

    @property
    def registration_open(self) -> bool:
        """Whether anybody may register: as set, else everywhere but in production."""
        return self.app_env != "prod" if self.registration is None else self.registration

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)

    @property
    def submit_grace(self) -> timedelta:
        return timedelta(seconds=self.submit_grace_seconds)

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())
        return value

    @field_validator("prompt_rate_limit")
    @classmethod
    def _parse_rate_limit(cls, value: str) -> str:
        try:
            parse_many(value)
        except ValueError as error:
            raise ValueError(f"{value!r} is no rate limit; write it like 1/second;10/minute") from error
        return value

    @model_validator(mode="after")
    def _refuse_weak_production(self) -> Self:
        if self.app_env != "prod":
            return self
        secret = self.jwt_secret_key.get_secret_value()
        if len(secret) < MIN_SECRET_LENGTH or secret.lower().startswith(_PLACEHOLDERS):
            raise ValueError(
                "JWT_SECRET_KEY is weak: whoever guesses it can be anybody. "
                "Set it to the output of: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
            )
        if self.ws_room_auth == "open":
            raise ValueError("WS_ROOM_AUTH=open lets anybody read everybody's answers. Set WS_ROOM_AUTH=token.")
        if "*" in self.allowed_origins:
            raise ValueError(
                "ALLOWED_ORIGINS=* lets any web page use the API with a user's token. "
                "List the origins of your pages, such as https://app.example.com."
            )
        return self


def load_settings() -> Settings:
    """Reads the settings of this process.

    Raises:
        SettingsError: one or more are missing or wrong.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(e["loc"], e["msg"]) for e in error.errors())) from None


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    if not location:
        return message.removeprefix("Value error, ")
    name = str(location[0]).upper()
    if message == "Field required":
        return f"{name} is not set. See .env.example for what it means and how to make one."
    return f"{name}: {message.removeprefix('Value error, ')}"
