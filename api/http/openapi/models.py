"""Base classes of the schemas, and the JSON Schema that is generated for them."""

from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import NullableSchema, WithDefaultSchema

from shared.request_body import Body as Body  # the schemas' modules import it from here
from shared.request_body import KnownNamesOnly


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


class Query(KnownNamesOnly, Parameters):
    """Query parameters. Unknown ones are refused, because they are usually typos."""

    model_config = ConfigDict(extra="forbid")


def example(value: object) -> dict[str, Any]:
    """An OpenAPI example of a parameter, for a field's `json_schema_extra`."""
    return {"examples": {"example": {"value": value}}}
