"""Learns which parameters of a request an endpoint refuses, and sends later requests of this process without them.

Only parameters that do not change an answer are left out: without `stream_options` usage is not reported, and vectors
come as numbers or in base64, and their length is checked. A limit of tokens is only renamed. Every other refused
parameter (temperature, tools, a response_format …) is an error that names it, because an answer without it is another.
"""

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.providers.openai_error_payloads import find_message, find_parameter

_REFUSALS = (400, 422)
_DROPPABLE = ("stream_options", "encoding_format", "dimensions")
_RENAMED = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
#: Words of a server that does not know a parameter, unlike one that only refuses its value.
_UNKNOWN = re.compile(
    r"not supported|unsupported|unknown|unrecogni[sz]ed|unexpected|extra (inputs|fields)|not (permitted|allowed)"
    r"|additional propert|deprecated|does not support|instead",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Changes:
    """How requests to an endpoint differ from those to OpenAI."""

    dropped: frozenset[str] = frozenset()
    renamed: tuple[str, ...] = ()  #: names that are replaced

    def applied(self, body: Mapping[str, Any]) -> dict[str, Any]:
        names = {key: _RENAMED[key] if key in self.renamed else key for key in body}
        return {names[key]: value for key, value in body.items() if key not in self.dropped}

    def after_refusal(self, status: int, payload: Any, body: Mapping[str, Any]) -> "Changes | None":
        """Return the changes to try after a refusal; None if it is about something else."""
        if status not in _REFUSALS:
            return None
        named, words = find_parameter(payload), _words(payload)
        for name in _DROPPABLE:
            if name in body and name not in self.dropped and (named.startswith(name) or name in words):
                return Changes(self.dropped | {name}, self.renamed)
        for name, other in _RENAMED.items():
            is_meant = named == name or re.search(rf"\b{name}\b", words)
            if name in body and name not in self.renamed and is_meant and (other in words or _UNKNOWN.search(words)):
                return Changes(self.dropped, (*self.renamed, name))
        return None


def refused_parameter(status: int, payload: Any, body: Mapping[str, Any]) -> str:
    """The parameter of a request that a refusal is about; "" if it does not say so, or its message names it already."""
    if status not in _REFUSALS:
        return ""
    places = [find_parameter(payload), *_places(payload)]
    named = (name for name in body for place in places if re.search(rf"\b{name}\b", place))
    name = next(named, "")
    return "" if re.search(rf"\b{name}\b", find_message(payload)) else name


@dataclass
class _Dialect:
    """What is known of one endpoint and model."""

    changes: Changes = field(default_factory=Changes)

    def learn(self, changes: Changes) -> None:
        """Keep changes with which a request has succeeded."""
        self.changes = changes


_dialects: dict[tuple[str, ...], _Dialect] = {}
_lock = threading.Lock()


def find_dialect(*key: str) -> _Dialect:
    """Return what this process knows of an endpoint, by its URL, path and model."""
    with _lock:
        return _dialects.setdefault(key, _Dialect())


def _words(payload: Any) -> str:
    """Return what an error says, with the places that validators name."""
    return " ".join((find_message(payload), *_places(payload)))


def _places(payload: Any) -> list[str]:
    """Return the places of errors as validators name them (`detail[].loc`)."""
    detail = payload.get("detail") if isinstance(payload, dict) else None
    return [str(each.get("loc")) for each in detail if isinstance(each, dict)] if isinstance(detail, list) else []
