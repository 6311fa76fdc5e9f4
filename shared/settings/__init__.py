"""Settings: one frozen, typed object, read from the environment and from `.env`.

Each setting is documented in `.env.example` and in `docs/settings.md`; `tests/unit/test_settings.py` checks both.

Every number has a lower and an upper limit. Beyond the upper one something would overflow (a date, a column, a socket's
timeout) or run out; what only costs performance is allowed.
"""

import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from decimal import Decimal
from secrets import token_urlsafe
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, PrivateAttr, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import DotEnvSettingsSource, NoDecode

from shared.settings import database_url, model_routes, names, oidc, sentences, values
from shared.settings.broker import BrokerSettings as BrokerSettings
from shared.settings.broker import FlowerSettings as FlowerSettings
from shared.settings.model_routes import DEFAULT_ROUTE, ModelRoute
from shared.settings.oidc import OidcSettings
from shared.settings.provider_names import EMBEDDERS, GENERATORS, factory_path
from shared.settings.public_url import parse_public_url
from shared.settings.url_password import with_password_setting

MIN_SECRET_LENGTH = 32
_DAY = 86_400  # seconds
_MANY = 1_000_000_000  # fits into an integer of PostgreSQL
_MAX_TEXT_BYTES = 256 * 1024 * 1024  # Redis and PostgreSQL's JSON take not much more
_MAX_FILE_BYTES = 10 * 1024 * 1024 * 1024
_PLACEHOLDERS = ("change", "secret", "example", "password", "replace", "your-")


class SettingsError(Exception):
    """Settings are missing or wrong. The message has a line for each: which one, and what to do."""


class Settings(OidcSettings, BrokerSettings):
    """All settings of the API and the workers. Secrets have no default."""

    port: int = Field(8_000, ge=1, le=65_535)
    api_processes: int = Field(1, ge=1, le=1_000)
    metrics_token: SecretStr = SecretStr("")
    worker_metrics_port: int = Field(0, ge=0, le=65_535)
    otel_exporter_otlp_endpoint: str = ""

    database_password: SecretStr = SecretStr("")
    database_url: SecretStr
    database_pool_size: int = Field(10, ge=1, le=1_000)

    jwt_secret_key: SecretStr
    access_token_minutes: int = Field(15, ge=1, le=525_600)
    refresh_token_days: int = Field(30, ge=1, le=3_650)
    registration: bool | None = None
    trusted_proxies: int = Field(0, ge=0, le=100)
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    public_url: str = ""
    flower_url: str = ""
    ws_room_auth: Literal["token", "open"] = "token"

    max_body_bytes: int = Field(1024 * 1024, ge=1024, le=_MAX_TEXT_BYTES)
    max_file_bytes: int = Field(200 * 1024 * 1024, ge=1024, le=_MAX_FILE_BYTES)
    user_file_bytes: int = Field(2 * 1024 * 1024 * 1024, ge=1024, le=1_000 * _MAX_FILE_BYTES)
    user_batch_limit: int = Field(10, ge=1, le=_MANY)
    request_timeout_seconds: float = Field(30, ge=0.1, le=_DAY)
    connection_limit_per_address: int = Field(500, ge=0, le=_MANY)
    prompt_rate_limit: str = "1/second;10/minute"
    backlog_limit: int = Field(5_000, ge=1, le=_MANY)
    user_backlog_limit: int = Field(1_000, ge=1, le=_MANY)
    user_running_limit: int | None = Field(None, ge=1, le=_MANY)
    user_socket_limit: int = Field(100, ge=1, le=_MANY)
    user_wait_limit: int = Field(100, ge=1, le=_MANY)
    user_search_limit: int = Field(4, ge=1, le=_MANY)
    user_monthly_tokens: int | None = Field(None, ge=1, le=10**15)
    max_page_bytes: int = Field(2 * 1024 * 1024, ge=1024, le=_MAX_TEXT_BYTES)
    max_answer_bytes: int = Field(1024 * 1024, ge=1024, le=_MAX_TEXT_BYTES)

    worker_pool: Literal["auto", "threads", "processes"] = "auto"
    worker_processes: int = Field(2, ge=1, le=1_000)
    worker_threads: int = Field(200, ge=1, le=10_000)
    worker_models: Annotated[tuple[str, ...], NoDecode] = ()
    heartbeat_file: str = ""
    lease_seconds: float = Field(60, ge=0.1, le=_DAY)
    reaper_seconds: float = Field(5, ge=0.1, le=3_600)
    submit_grace_seconds: float = Field(30, ge=0.1, le=_DAY)
    max_attempts: int = Field(5, ge=1, le=1_000)
    retry_backoff_seconds: float = Field(2, ge=0, le=3_600)
    generation_timeout_seconds: int = Field(300, ge=1, le=_DAY)
    soft_shutdown_seconds: float = Field(5, ge=0, le=3_600)

    models_file: str = ""
    generator: str = "simulated"
    simulated_delay: float = Field(0, ge=0, le=3_600)
    embedder: str = "hashing"
    previous_embedder: str = ""
    input_price: Decimal = Field(Decimal(0), ge=0, le=_MANY)
    output_price: Decimal = Field(Decimal(0), ge=0, le=_MANY)
    context_tokens: int | None = Field(None, ge=1, le=_MANY)
    reserved_output_tokens: int = Field(1_000, ge=0, le=_MANY)
    provider_patience_seconds: float = Field(3_600, ge=0, le=30 * _DAY)
    semantic_cache: bool = False
    semantic_cache_distance: float = Field(0.002, ge=0, le=4)
    history_characters: int = Field(20_000, ge=0, le=_MAX_TEXT_BYTES)

    openai_base_url: str = "https://api.openai.com/v1"
    openai_api_key: SecretStr = SecretStr("")
    openai_model: str = ""
    openai_system_prompt: str = ""
    openai_temperature: float | None = Field(None, ge=0, le=100)
    openai_max_tokens: int | None = Field(None, ge=1, le=_MANY)
    openai_timeout_seconds: float = Field(60, ge=0.1, le=_DAY)
    openai_concurrency: int | None = Field(None, ge=1, le=_MANY)
    openai_embedding_model: str = "text-embedding-3-small"
    openai_embedding_dimensions: int = Field(1_536, ge=1, le=65_536)
    openai_embedding_base_url: str = ""
    openai_embedding_api_key: SecretStr = SecretStr("")
    openai_embedding_timeout_seconds: float = Field(10, ge=0.1, le=_DAY)

    vector_store: Literal["faiss", "pgvector"] = "faiss"
    search_memory_mib: int = Field(256, ge=1, le=1_048_576)
    seal_from_vectors: int = Field(16_384, ge=256, le=_MANY)
    segments_url: str = ""
    feed_retention_days: int = Field(30, ge=1, le=36_500)
    feed_check_seconds: float = Field(5, ge=0.1, le=3_600)
    retention_days: int | None = Field(None, ge=1, le=36_500)

    webhook_allow_private: bool | None = None

    _routes: Mapping[str, ModelRoute] = PrivateAttr(default_factory=dict)
    _route_keys: Mapping[str, str] = PrivateAttr(default_factory=dict)
    #: The route whose settings these are, if it is of MODELS_FILE.
    _route: ModelRoute | None = PrivateAttr(None)

    @property
    def registration_open(self) -> bool:
        """Whether anyone may register: REGISTRATION if it is set, else everywhere but in production."""
        return self.app_env != "prod" if self.registration is None else self.registration

    @property
    def oidc_creates_accounts(self) -> bool:
        """Whether the first sign-in with the identity provider creates an account.

        OIDC_CREATE_ACCOUNTS if it is set, else if registration is open or the settings say who may sign in.
        """
        if self.oidc_create_accounts is not None:
            return self.oidc_create_accounts
        return self.registration_open or bool(self.oidc_allowed_domains or self.oidc_allowed_groups)

    @property
    def webhooks_may_be_private(self) -> bool:
        """Whether webhooks may have private addresses: WEBHOOK_ALLOW_PRIVATE if it is set, else in development."""
        return self.app_env == "dev" if self.webhook_allow_private is None else self.webhook_allow_private

    @property
    def models(self) -> Mapping[str, "Settings"]:
        """The model routes by name, the default one first, each with the settings of its generator."""
        return {name: self._of_route(name, route) for name, route in self._routes.items()} or {DEFAULT_ROUTE: self}

    @property
    def host_models(self) -> Mapping[str, "Settings"]:
        """Those of the model routes that the workers of this host answer: WORKER_MODELS, or all."""
        return {
            name: model for name, model in self.models.items() if not self.worker_models or name in self.worker_models
        }

    def _of_route(self, name: str, route: ModelRoute) -> "Settings":
        keys = {"openai_api_key": SecretStr(self._route_keys[name])} if name in self._route_keys else {}
        settings = self.model_copy(update={**route.changes, **keys})
        settings._route = route
        return settings

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
        if self._route is not None and self._route.concurrency is not None:
            return self._route.concurrency
        return self.openai_concurrency if self.generator == "openai" else None

    @property
    def partial_text_lifetime(self) -> timedelta:
        """The time limit of an attempt: its text does not grow after that."""
        return timedelta(seconds=self.generation_timeout_seconds)

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _check_origins(cls, value: object) -> object:
        return values.origins(value)

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _check_hosts(cls, value: object) -> object:
        return values.hosts(value)

    @field_validator("worker_models", mode="before")
    @classmethod
    def _check_worker_models(cls, value: object) -> object:
        return values.split(value) if isinstance(value, str) else value

    @field_validator("flower_url", "otel_exporter_otlp_endpoint", "openai_base_url", "openai_embedding_base_url")
    @classmethod
    def _check_http_url(cls, value: str) -> str:
        return values.http_url(value)

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, value: str) -> str:
        return value and str(parse_public_url(value))

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        url = with_password_setting(value, info, "database_password")
        values.refuse_placeholder(str(database_url.parse(url).url.password))
        return SecretStr(url)

    @field_validator("prompt_rate_limit")
    @classmethod
    def _check_rate_limit(cls, value: str) -> str:
        return values.rate_limit(value)

    @model_validator(mode="after")
    def _read_models_file(self) -> Self:
        if self.models_file:
            self._routes = model_routes.read(self.models_file, self.generator, self.openai_model)
            self._route_keys = model_routes.find_keys(self._routes, DotEnvSettingsSource(type(self)).env_vars)
        unknown = sorted(set(self.worker_models) - self.models.keys())
        if unknown:
            known = ", ".join(self.models)
            raise ValueError(f"WORKER_MODELS: there is no model {unknown[0]}. Known: {known}.")
        return self

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if self.port == self.flower_port:
            raise ValueError(f"PORT and FLOWER_PORT are both {self.port}: set one of them to another port.")
        if sentence := oidc.contradiction(self, app_env=self.app_env, public_url=self.public_url):
            raise ValueError(sentence)
        is_simulated = any(model.generator == "simulated" for model in self.models.values())
        if is_simulated and self.simulated_delay >= self.generation_timeout_seconds:
            raise ValueError(
                "SIMULATED_DELAY must be less than GENERATION_TIMEOUT_SECONDS "
                f"({self.generation_timeout_seconds}), or no prompt is ever answered."
            )
        return self

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


_S = TypeVar("_S", bound=BrokerSettings)


def load_settings(**defaults: str) -> Settings:
    """Read the settings of this process. `defaults` are for some that may be missing, by the names of their fields.

    Raises:
        SettingsError: settings are missing or wrong, or a name looks like a setting but is none.
    """
    return _load(Settings, defaults)


def load_settings_without_models(**defaults: str) -> Settings:
    """The same for a process that needs neither MODELS_FILE nor the keys that this names, and may not have them."""
    return _load(Settings, defaults, models_file="", worker_models="")


def load_flower_settings() -> FlowerSettings:
    """The same for Flower, which refuses what other processes would, but needs none of their secrets and models."""
    load_settings_without_models(database_url="postgresql://", jwt_secret_key=token_urlsafe())
    return _load(FlowerSettings, {})


def _load(kind: type[_S], defaults: Mapping[str, str], **fixed: str) -> _S:
    mistakes: list[str] = []
    try:
        dotenv = DotEnvSettingsSource(kind).env_vars
        given = {name.lower(): text for name, text in (*dotenv.items(), *os.environ.items()) if text}
        keys = model_routes.key_names(given.get("models_file", ""))
        known = [name.upper() for name in (*Settings.model_fields, *FlowerSettings.model_fields, *keys)]
        # An empty name sets nothing, but that of a setting says that the setting is known.
        environment = [name for name, value in os.environ.items() if value or name.upper() in known]
        mistakes += names.find_mistakes(known, environment, dotenv)
        missing = {name: text for name, text in defaults.items() if name not in given}
        settings = kind(**missing, **fixed)  # type: ignore[arg-type]
        if isinstance(settings, Settings):
            mistakes += _unknown_providers(settings)
    except ValidationError as error:
        mistakes += [sentences.describe(each, kind) for each in error.errors()]
    except (OSError, UnicodeDecodeError) as error:
        mistakes += [f".env cannot be read: {getattr(error, 'strerror', 'it is not UTF-8')}."]
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    return settings


def _unknown_providers(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each setting that names a provider that does not exist, as far as any process can tell."""
    for kind, setting in ((GENERATORS, "generator"), (EMBEDDERS, "embedder"), (EMBEDDERS, "previous_embedder")):
        if name := getattr(settings, setting):
            try:
                factory_path(kind, setting.upper(), name)
            except ValueError as error:
                yield str(error)
