"""Headers of requests that make prompts."""

from pydantic import BaseModel, Field

from api.http.fields import IdempotencyKey
from api.http.openapi.models import Parameters, example
from shared.prompts import idempotency
from shared.prompts.idempotency import KeyUse


class NewPromptHeaders(Parameters):
    """Headers of a request that makes a prompt."""

    idempotency_key: IdempotencyKey = Field(
        None,
        alias="Idempotency-Key",
        description="The same key and body within 24 hours make one prompt. SDKs send it as an extra header.",
        json_schema_extra=example("0b1c0d6e-8d4f-4c43-a0c0-5d2f2a3c6a11"),
    )

    def key_use(self, kind: str, body: BaseModel, user_id: int) -> KeyUse | None:
        """The use of the request's key. Whether it streams does not matter: a repeat may ask for the whole answer."""
        if self.idempotency_key is None:
            return None
        normalized = body.model_dump_json(by_alias=True, exclude_none=True, exclude={"stream", "stream_options"})
        return KeyUse(user_id, self.idempotency_key, idempotency.fingerprint(f"{kind} {normalized}"))
