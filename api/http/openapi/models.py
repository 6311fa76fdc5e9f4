"""Kinds of models: what is sent, what is answered, and the JSON Schema that describes them."""

from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import NullableSchema, WithDefaultSchema


class Schema(GenerateJsonSchema):
    """JSON Schema without titles made of the fields' names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


class _ParameterSchema(Schema):
    """In a URL and in headers there is no null: what is not given is left out."""

    def nullable_schema(self, schema: NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        return {name: value for name, value in made.items() if name != "default" or value is not None}


class Body(BaseModel):
    """A request body: an object with exactly these fields, in their JSON types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Answer(BaseModel):
    """A response body."""


class Parameters(BaseModel):
    """Headers, or what is in a path."""

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Made once where nothing else is asked for, because flask-openapi3 looks at it in each request."""
        if not args and not kwargs:
            return _json_schema(cls)
        return super().model_json_schema(*args, **{"schema_generator": _ParameterSchema} | kwargs)


@cache
def _json_schema(model: type[Parameters]) -> dict[str, Any]:
    return model.model_json_schema(schema_generator=_ParameterSchema)


class Query(Parameters):
    """Query parameters; unknown ones are refused, because they are most often misspelt ones."""

    model_config = ConfigDict(extra="forbid")


def example(value: object) -> dict[str, Any]:
    """A parameter's example, as OpenAPI has it, for a field's `json_schema_extra`."""
    return {"examples": {"example": {"value": value}}}
