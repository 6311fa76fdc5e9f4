"""The query parameters that filter prompts, in lists and in searches."""

import re
from typing import Any

from pydantic import Field, model_validator

from api.http.fields import MAX_MODEL_LENGTH, Metadata, Time
from api.http.openapi.models import Query, example
from shared.db.models import Status
from shared.prompts.filters import PromptFilter

_PAIR = re.compile(r"metadata\[(.*)\]", re.DOTALL)


class MetadataQuery(Query):
    """Query parameters with those pairs that a prompt must have in its metadata: `metadata[key]=value`."""

    model: str | None = Field(
        None,
        max_length=MAX_MODEL_LENGTH,
        description="Only prompts of this model route.",
        json_schema_extra=example("default"),
    )
    metadata: Metadata | None = Field(
        None,
        description="Only prompts with this pair in their metadata: `metadata[key]=value`. With several, only those "
        "that have all of them.",
        json_schema_extra=example({"customer": "42"}),
    )

    @model_validator(mode="before")
    @classmethod
    def _collect_metadata(cls, values: Any) -> Any:
        """Make one field of all `metadata[key]` parameters."""
        if not isinstance(values, dict):
            return values
        pairs = {match[1]: value for name, value in values.items() if (match := _PAIR.fullmatch(name))}
        if not pairs:
            return values
        return {name: value for name, value in values.items() if not _PAIR.fullmatch(name)} | {"metadata": pairs}


class FilterQuery(MetadataQuery):
    """Query parameters of which prompts are meant."""

    status: Status | None = Field(None, description="Only prompts with this status.")
    since: Time | None = Field(
        None,
        description="Only prompts that were submitted at this time or later.",
        json_schema_extra=example("2026-11-23T00:00:00Z"),
    )
    until: Time | None = Field(
        None,
        description="Only prompts that were submitted before this time.",
        json_schema_extra=example("2026-11-24T00:00:00Z"),
    )

    def filter(self) -> PromptFilter:
        return PromptFilter(**{name: getattr(self, name) for name in PromptFilter._fields})

    def link_parameters(self) -> dict[str, Any]:
        """The parameters of the filter, for the link to the next page; None for those that are not given."""
        pairs = {f"metadata[{key}]": value for key, value in (self.metadata or {}).items()}
        times = {name: moment and moment.isoformat() for name, moment in (("since", self.since), ("until", self.until))}
        return {"status": self.status, "model": self.model, **pairs, **times}
