"""MODELS_FILE: model routes, each with a generator and prices of its own.

A TOML file with a table `[models.NAME]` for each route. What a table leaves out is as in the settings. A prompt names
its route as its `model`; without one it takes the route `default`, or the first of the file if none has that name.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from shared.settings import sentences, values
from shared.settings.provider_names import GENERATORS, factory_path

#: The model route that the settings make without MODELS_FILE.
DEFAULT_ROUTE = "default"
#: A route's name stands in URLs (`/v1/models/NAME`) and in the names of queues.
_NAME = re.compile(r"(?=.{1,64}\Z)[A-Za-z0-9][A-Za-z0-9._:-]*(/[A-Za-z0-9][A-Za-z0-9._:-]*)*")
_INVALID_NAME = (
    "MODELS_FILE: {name} is not a valid name of a model: use letters, digits and . _ : / - (up to 64), and begin each "
    "part with a letter or a digit."
)
_MANY = 1_000_000_000
_DAY = 86_400  # seconds
#: Keys that mean nothing to the simulated generator. With them, another one is meant.
_ONLY_REAL = ("model", "base_url", "api_key_env")


def _exact(value: object) -> object:
    """A number as it stands in the file: 0.15 is not quite the float of that name."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Decimal(str(value)) if is_number else value


_Text = Annotated[str | None, Field(min_length=1)]
_Count = Annotated[int | None, Field(ge=1, le=_MANY)]
_Price = Annotated[Decimal | None, BeforeValidator(_exact), Field(ge=0, le=_MANY)]


class ModelRoute(BaseModel):
    """A table of the file. Its keys replace the settings that are their aliases."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, allow_inf_nan=False)

    generator: _Text = None
    model: _Text = Field(None, serialization_alias="openai_model")
    base_url: _Text = Field(None, serialization_alias="openai_base_url")
    api_key_env: _Text = Field(None, exclude=True)
    concurrency: _Count = Field(None, serialization_alias="openai_concurrency")
    context_tokens: _Count = None
    input_price: _Price = None
    output_price: _Price = None
    system_prompt: str | None = Field(None, serialization_alias="openai_system_prompt")
    temperature: float | None = Field(None, ge=0, le=100, serialization_alias="openai_temperature")
    max_output_tokens: _Count = Field(None, serialization_alias="openai_max_tokens")
    timeout_seconds: float | None = Field(None, ge=0.1, le=_DAY, serialization_alias="openai_timeout_seconds")

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, value: str) -> str:
        return values.http_url(value)

    @property
    def changes(self) -> dict[str, Any]:
        """The settings of the route that differ from those of the process, but for its key."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class ModelsFileError(ValueError):
    """MODELS_FILE cannot be used. The message has a line for each mistake."""


def read(path: str, generator: str, model: str) -> dict[str, ModelRoute]:
    """Read the routes of a file by name, the default one first.

    Args:
        generator, model: GENERATOR and OPENAI_MODEL, which apply to routes that name no others.

    Raises:
        ModelsFileError: the file does not exist or has mistakes.
    """
    tables = _read_tables(path)
    mistakes = [_INVALID_NAME.format(name=repr(name)) for name in tables if not _NAME.fullmatch(name)]
    routes: dict[str, ModelRoute] = {}
    for name, table in tables.items():
        try:
            routes[name] = ModelRoute.model_validate(table)
        except ValidationError as error:
            mistakes += [_describe(name, each) for each in error.errors()]
        else:
            mistakes += _find_mistakes(name, routes[name], generator, model)
    if mistakes:
        raise ModelsFileError("\n".join(mistakes))
    first = DEFAULT_ROUTE if DEFAULT_ROUTE in routes else next(iter(routes))
    return {first: routes[first], **routes}


def key_names(path: str) -> list[str]:
    """The names of environment variables that a file mentions; none if it cannot be read."""
    try:
        tables = _read_tables(path).values() if path else ()
    except ModelsFileError:
        return []
    named = [table.get("api_key_env") for table in tables if isinstance(table, dict)]
    return [name for name in named if isinstance(name, str)]


def find_keys(routes: Mapping[str, ModelRoute], dotenv: Mapping[str, str | None]) -> dict[str, str]:
    """The API keys of the routes, by route, from the environment or `.env`, whose names are in lower case.

    Without `api_key_env`, a route with a `base_url` of its own has no key: OPENAI_API_KEY is for OPENAI_BASE_URL.

    Raises:
        ModelsFileError: a variable is not set.
    """
    keys: dict[str, str] = {}
    mistakes = []
    for name, route in routes.items():
        if route.api_key_env is not None:
            keys[name] = os.environ.get(route.api_key_env) or dotenv.get(route.api_key_env.lower()) or ""
            if not keys[name]:
                mistakes.append(f"{route.api_key_env} is not set: MODELS_FILE names it as the key of the model {name}.")
        elif route.base_url is not None:
            keys[name] = ""
    if mistakes:
        raise ModelsFileError("\n".join(mistakes))
    return keys


def _read_tables(path: str) -> dict[str, Any]:
    """The tables below `models`, by name."""
    try:
        with Path(path).open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise ModelsFileError(f"MODELS_FILE: {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ModelsFileError(f"MODELS_FILE: {path} is not valid TOML: {reason}.") from None
    unknown = sorted(content.keys() - {"models"})
    if unknown:
        raise ModelsFileError(f"MODELS_FILE: {unknown[0]} is not known at the top level; write tables [models.NAME].")
    tables = content.get("models")
    if not isinstance(tables, dict) or not tables:
        raise ModelsFileError(f"MODELS_FILE: {path} has no table [models.NAME].")
    return tables


def _find_mistakes(name: str, route: ModelRoute, generator: str, model: str) -> Iterator[str]:
    """Yield a sentence for each contradiction in a route."""
    generator = route.generator or generator
    try:
        factory_path(GENERATORS, f"MODELS_FILE: models.{name}.generator", generator)
    except ValueError as error:
        yield str(error)
    given = [key for key in _ONLY_REAL if getattr(route, key) is not None]
    if generator == "simulated" and given:
        yield f'MODELS_FILE: [models.{name}] is simulated and has no {given[0]}; for a model set generator = "openai".'
    if generator == "openai" and not (route.model or model).strip():
        yield f"MODELS_FILE: [models.{name}] needs a model: the name that its endpoint knows."


def _describe(name: str, error: Any) -> str:
    table = f"MODELS_FILE: [models.{name}]"
    if not error["loc"]:
        return f"MODELS_FILE: models.{name} is not a table; write [models.{name}]."
    key = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        hint = f' (A name with dots needs quotes: [models."{name}.{key}"].)' if isinstance(error["input"], dict) else ""
        return f"{table} has an unknown key: {key}. Known: {', '.join(ModelRoute.model_fields)}.{hint}"
    return sentences.describe(error, ModelRoute, f"{table}: {key}")
