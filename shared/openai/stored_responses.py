"""Responses in the database: finding them, continuing them, and the texts that their failed attempts published."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from pydantic import TypeAdapter
from sqlalchemy import ARRAY, BigInteger, any_, bindparam, select, text

from shared.db.engine import Executor
from shared.db.models import FrontApi, Prompt, Status
from shared.errors import InvalidFieldsError, PromptNotFoundError
from shared.messaging.partial_text import PartialText
from shared.openai import ids, response_events, responses_request
from shared.openai.chat_messages import Conversation
from shared.openai.ids import IdPrefix
from shared.openai.parsed import ParsedRequest
from shared.openai.response_items import Item, ItemReference
from shared.openai.response_resource import StoredResponse, output_items
from shared.openai.responses_request import ResponseRequest
from shared.prompts import queries
from shared.providers.model_request import Message

_ITEM: TypeAdapter[Any] = TypeAdapter(Item)
_prompts = Prompt.__table__.c
_FIND = select(*queries.COLUMNS, _prompts.request, _prompts.api_request).where(
    _prompts.id == any_(bindparam("prompt_ids", type_=ARRAY(BigInteger))),
    _prompts.user_id == bindparam("user_id"),
    _prompts.api == FrontApi.RESPONSES,
    _prompts.emptied_at.is_(None),
)
# The first to notice the end of an attempt decides what its text was. Without any text it has no entry.
_KEEP = text("""
    UPDATE prompts SET api_request = jsonb_set(
        api_request, '{interrupted}', jsonb_build_object(CAST(:attempt AS text), CAST(:text AS text))
        || coalesce(api_request -> 'interrupted', '{}')
    )
    WHERE id = :prompt_id AND api = 'responses' AND api_request IS NOT NULL
    RETURNING api_request -> 'interrupted' ->> CAST(:attempt AS text)
""")
_INTERRUPTED = text("SELECT api_request -> 'interrupted' FROM prompts WHERE id = :prompt_id")


def find(executor: Executor, user_id: int, prompt_id: int | None, *, unstored: bool = False) -> StoredResponse:
    """The user's response.

    Args:
        prompt_id: None if its id was malformed.
        unstored: Whether to find it also if its request had `store: false`.

    Raises:
        PromptNotFoundError: there is none, it belongs to another user, or it is not kept any more.
    """
    for found in _find_all(executor, user_id, [] if prompt_id is None else [prompt_id]):
        if found.is_stored or unstored:
            return found
    raise PromptNotFoundError("There is no such response. It may have been deleted.")


def resolve(executor: Executor, user_id: int, request: ResponseRequest) -> ResponseRequest:
    """The request with the items that its input refers to.

    Raises:
        PromptNotFoundError: there is no such item, or its response was deleted.
    """
    conversation = cast(Conversation, request.input)
    wanted = [reference.id for reference in responses_request.references(request)]
    if not wanted:
        return request
    numbers = {number for each in wanted if (number := ids.of_item(each)) is not None}
    found = {
        item["id"]: item
        for response in _find_all(executor, user_id, sorted(numbers))
        if response.is_stored
        for item in output_items(response.prompt, response_events.restarts(response))
    }
    if missing := [each for each in wanted if each not in found]:
        raise PromptNotFoundError(f"There is no item {missing[0]}. Its response may have been deleted.")
    known = {each: _ITEM.validate_python(found[each]) for each in wanted}
    items = [known[item.id] if isinstance(item, ItemReference) else item for item in conversation.given]
    return request.model_copy(update={"input": responses_request.read_input(items)})


def _find_all(executor: Executor, user_id: int, prompt_ids: Sequence[int]) -> list[StoredResponse]:
    rows = executor.execute(_FIND, {"user_id": user_id, "prompt_ids": list(prompt_ids)})
    return [StoredResponse.from_row(row) for row in rows]


def continue_from(executor: Executor, user_id: int, parsed: ParsedRequest) -> ParsedRequest:
    """The request with the turns of `previous_response_id` before its own. They are copied: each response has its own.

    Raises:
        PromptNotFoundError: there is no such response, or it was deleted.
        InvalidFieldsError: it has no answer.
    """
    previous_id = (parsed.api_request or {}).get("previous_response_id")
    if previous_id is None:
        return parsed
    try:
        previous = find(executor, user_id, ids.parse(IdPrefix.RESPONSE, previous_id))
    except PromptNotFoundError:
        raise PromptNotFoundError(f"There is no response {previous_id}. It may have been deleted.") from None
    if previous.prompt.status != Status.COMPLETED:
        message = f"The response {previous_id} is {previous.prompt.status}: only a completed one can be continued."
        raise InvalidFieldsError(message, ["previous_response_id"])
    messages = [*_turns(previous), *parsed.asked.messages]
    return replace(parsed, asked=replace(parsed.asked, messages=messages))


def _turns(response: StoredResponse) -> list[Message]:
    """The conversation up to the answer of this response. Instructions are not passed on."""
    answer: dict[str, Any] = {"role": "assistant", "content": response.prompt.answer.response_text or None}
    if calls := response.prompt.answer.tool_calls:
        answer["tool_calls"] = list(calls)
    return [*replace(response.asked, instructions=None).conversation(response.prompt.prompt_text), answer]


def interrupted_texts(executor: Executor, prompt_id: int) -> dict[int, str]:
    """The stored texts of failed and cancelled attempts, by attempt."""
    found = executor.execute(_INTERRUPTED, {"prompt_id": prompt_id}).scalar()
    return {int(attempt): published for attempt, published in (found or {}).items()}


def keep_interrupted_text(
    executor: Executor, partial_text: PartialText, prompt_id: int, attempt: int, known: str = ""
) -> str:
    """Store what an attempt has published before it failed or was cancelled, unless it is stored. Returns what is.

    The first call decides, so that every replay of the stream shows the same.

    Args:
        executor: In autocommit mode.
        known: What the caller has read of it, in case Redis has lost it.
    """
    published = max(_read_all(partial_text, prompt_id, attempt), known, key=len)
    if not published:
        return ""
    row = executor.execute(_KEEP, {"prompt_id": prompt_id, "attempt": attempt, "text": published}).first()
    return published if row is None else str(row[0])


def _read_all(partial_text: PartialText, prompt_id: int, attempt: int) -> str:
    parts, offset = [], 0
    while part := partial_text.read(prompt_id, attempt, offset):
        parts.append(part)
        offset += len(part.encode())
    return "".join(parts)
