"""Base classes of the schemas, and the JSON Schema that is generated for them."""

from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import NullableSchema, WithDefaultSchema

#: Up to this many unknown fields or parameters get an error each. More get one error together, because pydantic takes
#: 0.3 s for 60,000 errors.
MAX_UNKNOWN_NAMES = 16


class Schema(GenerateJsonSchema):
    """JSON Schema without titles that repeat the field names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


class _ParameterSchema(Schema):
    """URLs and headers have no null: a missing parameter is omitted."""

    def nullable_schema(self, schema: NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        schema_value = super().default_schema(schema)
        return {name: value for name, value in schema_value.items() if name != "default" or value is not None}


class _KnownNamesOnly(BaseModel):
    """A model that refuses input with many unknown names, in one error."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_many_unknown(cls, values: Any) -> Any:
        if isinstance(values, dict) and len(values) > len(cls.model_fields) + MAX_UNKNOWN_NAMES:
            names = ", ".join(field.alias or name for name, field in cls.model_fields.items())
            raise ValueError(f"There are {len(values)} names, most of them unknown. Known: {names}.")
        return values


class Body(_KnownNamesOnly):
    """A request body: an object with exactly these fields, in their JSON types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Answer(BaseModel):
    """A response body."""


class Parameters(BaseModel):
    """Headers or path parameters."""

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Cache the default schema, because flask-openapi3 reads it in each request."""
        if not args and not kwargs:
            return _json_schema(cls)
        return super().model_json_schema(*args, **{"schema_generator": _ParameterSchema} | kwargs)


@cache
def _json_schema(model: type[Parameters]) -> dict[str, Any]:
    return model.model_json_schema(schema_generator=_ParameterSchema)


class Query(_KnownNamesOnly, Parameters):
    """Query parameters. Unknown ones are refused, because they are usually typos."""

    model_config = ConfigDict(extra="forbid")


def example(value: object) -> dict[str, Any]:
    """An OpenAPI example of a parameter, for a field's `json_schema_extra`."""
    return {"examples": {"example": {"value": value}}}
