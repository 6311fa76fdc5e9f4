"""Settings: one frozen, typed object, read from the environment and from `.env`.

Each setting is documented in `.env.example` and in `docs/settings.md`; `tests/unit/test_settings.py` checks both.
"""

from datetime import timedelta
from typing import Annotated, Literal, Self, TypeVar

from limits import parse_many
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from shared import database_url
from shared.url_password import with_password

MIN_SECRET_LENGTH = 32
_PLACEHOLDERS = ("change", "secret", "example", "password", "replace", "your-")


class SettingsError(Exception):
    """Settings are missing or wrong. The message has a line for each: which one, and what to do."""


class BrokerSettings(BaseSettings):
    """What a process needs that only talks to the broker."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    app_env: Literal["dev", "prod", "test"] = "dev"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "console", "json"] = "auto"

    listen_address: str = "127.0.0.1"
    # The password stands before the URL, whose validator inserts it.
    redis_password: SecretStr = SecretStr("")
    redis_url: SecretStr

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        url = with_password(value.get_secret_value(), _password(info, "redis_password"))
        if _scheme(url) not in ("redis", "rediss"):
            raise ValueError("this is not a Redis URL; write it like redis://:password@host:6379/0")
        return SecretStr(url)


class FlowerSettings(BrokerSettings):
    """The settings of Flower, which gets no other secrets."""

    flower_port: int = Field(5555, ge=1, le=65_535)
    flower_password: SecretStr = Field(min_length=1)


class Settings(BrokerSettings):
    """All settings of the API and the workers. Secrets have no default."""

    metrics_token: SecretStr = SecretStr("")
    worker_metrics_port: int = Field(0, ge=0, le=65_535)
    otel_exporter_otlp_endpoint: str = ""

    database_password: SecretStr = SecretStr("")
    database_url: SecretStr
    database_pool_size: int = Field(10, ge=1)

    jwt_secret_key: SecretStr
    access_token_minutes: int = Field(15, ge=1)
    refresh_token_days: int = Field(30, ge=1)
    registration: bool | None = None
    trusted_proxies: int = Field(0, ge=0)
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    public_url: str = ""
    flower_url: str = ""
    ws_room_auth: Literal["token", "open"] = "token"

    max_body_bytes: int = Field(1024 * 1024, ge=1024)
    request_timeout_seconds: float = Field(30, gt=0)
    connection_limit_per_address: int = Field(500, ge=0)
    prompt_rate_limit: str = "1/second;10/minute"
    backlog_limit: int = Field(5_000, ge=1)
    user_backlog_limit: int = Field(1_000, ge=1)
    user_running_limit: int | None = Field(None, ge=1)
    user_socket_limit: int = Field(100, ge=1)
    user_wait_limit: int = Field(100, ge=1)
    user_search_limit: int = Field(4, ge=1)
    max_page_bytes: int = Field(2 * 1024 * 1024, ge=1024)
    max_answer_bytes: int = Field(1024 * 1024, ge=1024)

    worker_pool: Literal["auto", "threads", "processes"] = "auto"
    worker_processes: int = Field(2, ge=1)
    worker_threads: int = Field(200, ge=1)
    heartbeat_file: str = ""
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
    provider_patience_seconds: float = Field(3_600, ge=0)
    semantic_cache: bool = False
    semantic_cache_distance: float = Field(0.002, ge=0, le=4)
    history_characters: int = Field(20_000, ge=0)

    openai_base_url: str = "https://api.openai.com/v1"
    openai_api_key: SecretStr = SecretStr("")
    openai_model: str = ""
    openai_system_prompt: str = ""
    openai_temperature: float | None = Field(None, ge=0)
    openai_max_tokens: int | None = Field(None, ge=1)
    openai_timeout_seconds: float = Field(60, gt=0)
    openai_concurrency: int | None = Field(None, ge=1)
    openai_embedding_model: str = "text-embedding-3-small"
    openai_embedding_dimensions: int = Field(1_536, ge=1)
    openai_embedding_base_url: str = ""
    openai_embedding_api_key: SecretStr = SecretStr("")
    openai_embedding_timeout_seconds: float = Field(10, gt=0)

    vector_store: Literal["faiss", "pgvector"] = "faiss"
    search_memory_mib: int = Field(256, ge=1)
    seal_from_vectors: int = Field(16_384, ge=256)
    segments_url: str = ""
    feed_retention_days: int = Field(30, ge=1)
    feed_check_seconds: float = Field(5, gt=0)

    @property
    def registration_open(self) -> bool:
        """Whether anyone may register: REGISTRATION if it is set, else everywhere but in production."""
        return self.app_env != "prod" if self.registration is None else self.registration

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)

    @property
    def submit_grace(self) -> timedelta:
        return timedelta(seconds=self.submit_grace_seconds)

    @property
    def provider_patience(self) -> timedelta:
        return timedelta(seconds=self.provider_patience_seconds)

    @property
    def concurrency_ceiling(self) -> int | None:
        """How many prompts all workers together send to the generator at a time. None: as many as it can handle."""
        return self.openai_concurrency if self.generator == "openai" else None

    @property
    def partial_text_lifetime(self) -> timedelta:
        """The time limit of an attempt: its text does not grow after that."""
        return timedelta(seconds=self.generation_timeout_seconds)

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())
        return value

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        url = with_password(value.get_secret_value(), _password(info, "database_password"))
        database_url.parse(url)
        return SecretStr(url)

    @field_validator("prompt_rate_limit")
    @classmethod
    def _parse_rate_limit(cls, value: str) -> str:
        try:
            parse_many(value)
        except ValueError as error:
            raise ValueError(f"{value!r} is not a valid rate limit; write it like 1/second;10/minute") from error
        return value

    @model_validator(mode="after")
    def _refuse_weak_production(self) -> Self:
        if self.app_env != "prod":
            return self
        secret = self.jwt_secret_key.get_secret_value()
        if len(secret) < MIN_SECRET_LENGTH or secret.lower().startswith(_PLACEHOLDERS):
            raise ValueError(
                "JWT_SECRET_KEY is weak: with it, an attacker can forge the tokens of all users. "
                "Set it to the output of: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
            )
        if self.ws_room_auth == "open":
            raise ValueError("WS_ROOM_AUTH=open lets anyone read the answers of all users. Set WS_ROOM_AUTH=token.")
        if "*" in self.allowed_origins:
            raise ValueError(
                "ALLOWED_ORIGINS=* lets any web page use the API with a user's token. "
                "List the origins of your pages, such as https://app.example.com."
            )
        return self


_S = TypeVar("_S", bound=BaseSettings)


def load_settings() -> Settings:
    """Read the settings of this process.

    Raises:
        SettingsError: settings are missing or wrong.
    """
    return _load(Settings)


def load_flower_settings() -> FlowerSettings:
    """The same for Flower."""
    return _load(FlowerSettings)


def _load(kind: type[_S]) -> _S:
    try:
        return kind()
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(e["loc"], e["msg"]) for e in error.errors())) from None


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    if not location:
        return message.removeprefix("Value error, ")
    name = str(location[0]).upper()
    if message == "Field required":
        return f"{name} is not set. See .env.example for what it means and how to make one."
    return f"{name}: {message.removeprefix('Value error, ')}"


def _password(info: ValidationInfo, name: str) -> str:
    password: SecretStr | None = info.data.get(name)
    return "" if password is None else password.get_secret_value()


def _scheme(url: str) -> str:
    """The scheme of a URL; empty if it is not a URL.

    SQLAlchemy parses Redis URLs, too: gunicorn reads settings before gevent has patched what redis-py imports.
    """
    try:
        return make_url(url).drivername
    except (ArgumentError, ValueError):
        return ""
