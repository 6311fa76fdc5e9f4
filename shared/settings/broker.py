"""The settings of processes that only talk to the broker."""

from typing import Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.settings import values
from shared.settings.url_password import with_password_setting


class BrokerSettings(BaseSettings):
    """The settings of a process that only talks to the broker. All other processes have them, too."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    app_env: Literal["dev", "prod", "test"] = "dev"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "console", "json"] = "auto"

    listen_address: str = "127.0.0.1"
    # The password stands before the URL, whose validator inserts it.
    redis_password: SecretStr = SecretStr("")
    redis_url: SecretStr
    flower_port: int = Field(5_555, ge=1, le=65_535)

    @field_validator("flower_port", "worker_metrics_port", mode="before", check_fields=False)
    @classmethod
    def _ignore_service_link(cls, value: object, info: ValidationInfo) -> object:
        """Kubernetes sets FLOWER_PORT=tcp://… in every container next to a Service with the name `flower`."""
        is_link = isinstance(value, str) and value.startswith("tcp://")
        return cls.model_fields[str(info.field_name)].default if is_link else value

    @field_validator("listen_address")
    @classmethod
    def _check_address(cls, value: str) -> str:
        return values.address(value)

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        return SecretStr(values.redis_url(with_password_setting(value, info, "redis_password")))


class FlowerSettings(BrokerSettings):
    """The settings of Flower, which gets no other secrets."""

    flower_password: SecretStr = Field(min_length=1)
