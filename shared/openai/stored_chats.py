"""Chat completions in the database: finding one, listing them, and the messages of their requests.

Those of requests with `store: false` are not found: they are deleted some minutes after their end.
"""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, select, text

from shared.db.engine import Executor
from shared.db.models import UNSTORED, FrontApi, Prompt, Status
from shared.errors import PromptNotFoundError
from shared.openai import ids
from shared.openai.ids import IdPrefix
from shared.prompts import queries
from shared.prompts.filters import PromptFilter
from shared.prompts.queries import Page, PromptRow
from shared.providers.model_request import ModelRequest

_IS_STORED = f"prompts.api = '{FrontApi.CHAT_COMPLETIONS}' AND ({UNSTORED}) IS NOT TRUE"
_HAS_TEXTS = "prompts.emptied_at IS NULL"
_prompts = Prompt.__table__.c
_FIND = select(*queries.COLUMNS, _prompts.request).where(
    _prompts.id == bindparam("prompt_id"), _prompts.user_id == bindparam("user_id"), text(_IS_STORED)
)
_SET_METADATA = text(f"""
    UPDATE prompts SET metadata = CAST(:metadata AS jsonb)
    WHERE id = :prompt_id AND user_id = :user_id AND {_IS_STORED} RETURNING id
""")  # noqa: S608  # nosec B608


def find(executor: Executor, user_id: int, completion_id: str) -> PromptRow:
    """The prompt of a chat completion, with its request.

    Raises:
        PromptNotFoundError: there is none, it belongs to another user, or its request had `store: false`.
    """
    prompt_id = ids.parse(IdPrefix.CHAT_COMPLETION, completion_id)
    row = executor.execute(_FIND, {"user_id": user_id, "prompt_id": prompt_id}).first()
    if row is None:
        raise _not_found()
    return PromptRow.from_row(row)._replace(request=row.request)


def set_metadata(executor: Executor, user_id: int, completion_id: str, metadata: Mapping[str, str] | None) -> int:
    """Replace the metadata of a chat completion. Returns the id of its prompt. Raises as `find` does."""
    one = {"user_id": user_id, "prompt_id": ids.parse(IdPrefix.CHAT_COMPLETION, completion_id)}
    row = executor.execute(_SET_METADATA, one | {"metadata": json.dumps(metadata) if metadata else None}).first()
    if row is None:
        raise _not_found()
    return int(row.id)


def page(
    executor: Executor,
    user_id: int,
    *,
    limit: int,
    max_bytes: int,
    matching: PromptFilter,
    ascending: bool,
    start_after: int | None,
) -> Page:
    """The user's chat completions that have an answer, as `queries.page` has prompts."""
    return queries.page(
        executor,
        user_id,
        limit=limit,
        max_bytes=max_bytes,
        matching=matching._replace(status=Status.COMPLETED),
        ascending=ascending,
        start_after=start_after,
        conditions=(_IS_STORED, _HAS_TEXTS),
    )


def messages(prompt: PromptRow) -> list[dict[str, Any]]:
    """The messages of a chat completion's request, in their order. A content of several parts is `content_parts`."""
    given = ModelRequest.from_json(prompt.request).conversation(prompt.prompt_text)
    completion_id = ids.make(IdPrefix.CHAT_COMPLETION, prompt.id)
    return [_message(message, f"{completion_id}-{number}") for number, message in enumerate(given)]


def _not_found() -> PromptNotFoundError:
    return PromptNotFoundError("There is no such chat completion. It may have been deleted.")


def _message(message: dict[str, Any], message_id: str) -> dict[str, Any]:
    content = message.get("content")
    has_parts = isinstance(content, list)
    shown = {"content": None if has_parts else content, "content_parts": content if has_parts else None}
    return {"name": None, **message, "id": message_id, **shown}
