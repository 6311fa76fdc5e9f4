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
    FILE = "file-"
    BATCH = "batch_"


def make(prefix: IdPrefix, number: int) -> str:
    """The id of this number."""
    return f"{prefix}{number}"


def parse(prefix: IdPrefix, text: str) -> int | None:
    """The number in an id; None if it is not an id of this kind, so that nothing has it."""
    digits = text.removeprefix(prefix)
    if digits == text or not _NUMBER.fullmatch(digits):
        return None
    return number if (number := int(digits)) <= _MAX_NUMBER else None
