"""Filters of a user's prompts: which of them a list or a search is about."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

#: A condition on a row of `prompts` for each field of a filter. Its parameter has the field's name.
_CONDITIONS = {
    "status": "prompts.status = :status",
    "model": "prompts.route = :model",
    # The index `prompts_by_metadata` has only rows with metadata.
    "metadata": "prompts.metadata IS NOT NULL AND prompts.metadata @> CAST(:metadata AS jsonb)",
    "since": "prompts.created_at >= :since",
    "until": "prompts.created_at < :until",
}


class PromptFilter(NamedTuple):
    """Which prompts are meant: those to which every field applies that is not None."""

    status: str | None = None
    model: str | None = None  #: the model route
    metadata: Mapping[str, str] | None = None  #: the prompt has all of these pairs
    since: datetime | None = None  #: submitted then or later
    until: datetime | None = None  #: submitted before

    @property
    def conditions(self) -> tuple[str, ...]:
        """Conditions in SQL on a row of `prompts`, all of which hold, with `parameters`; none if it is about all."""
        return tuple(_CONDITIONS[name] for name in self._given())

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the conditions."""
        given = self._given()
        return given | {"metadata": json.dumps(self.metadata)} if "metadata" in given else given

    def _given(self) -> dict[str, Any]:
        return {name: value for name, value in self._asdict().items() if value is not None and value != {}}


ALL_PROMPTS = PromptFilter()
