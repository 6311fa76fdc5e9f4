"""Headers of requests that make prompts."""

from pydantic import Field

from api.http.fields import IdempotencyKey
from api.http.openapi.models import Parameters, example


class NewPromptHeaders(Parameters):
    """Headers of a request that makes a prompt."""

    idempotency_key: IdempotencyKey = Field(
        None,
        alias="Idempotency-Key",
        description="The same key and body within 24 hours make one prompt. SDKs send it as an extra header.",
        json_schema_extra=example("0b1c0d6e-8d4f-4c43-a0c0-5d2f2a3c6a11"),
    )
