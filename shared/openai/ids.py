"""The ids of OpenAI's API: a prefix, which says what it is, and the number by which it is stored."""

import re
from enum import StrEnum

_MAX_NUMBER = 2**63 - 1
_NUMBER = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)


class IdPrefix(StrEnum):
    """The prefix of each kind of id. Responses, chat completions and messages have the number of their prompt."""

    RESPONSE = "resp_"
    CHAT_COMPLETION = "chatcmpl-"
    MESSAGE = "msg_"
    CALL = "fc_"
    FILE = "file-"
    BATCH = "batch_"


#: The kinds of items in the output of a response. Their ids begin with the number of its prompt.
_ITEMS = (IdPrefix.MESSAGE, IdPrefix.CALL)


def make(prefix: IdPrefix, number: int) -> str:
    """The id of this number."""
    return f"{prefix}{number}"


def parse(prefix: IdPrefix, text: str) -> int | None:
    """The number in an id; None if it is not an id of this kind, so that nothing has it."""
    digits = text.removeprefix(prefix)
    if digits == text or not _NUMBER.fullmatch(digits):
        return None
    return number if (number := int(digits)) <= _MAX_NUMBER else None


def of_item(text: str) -> int | None:
    """The number of the response that has an item of this id, such as `msg_7`, `msg_7_2` or `fc_7_1`; else None."""
    owner = "_".join(text.split("_")[:2])
    return next((number for prefix in _ITEMS if (number := parse(prefix, owner)) is not None), None)
