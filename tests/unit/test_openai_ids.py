"""The ids of OpenAI's API."""

import pytest

from shared.openai import ids
from shared.openai.ids import IdPrefix


@pytest.mark.parametrize("prefix", IdPrefix)
@pytest.mark.parametrize("number", [1, 4711, 2**63 - 1])
def test_an_id_is_parsed_back_to_its_number(prefix: IdPrefix, number: int) -> None:
    assert ids.parse(prefix, ids.make(prefix, number)) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "resp_",
        "resp_0",
        "resp_01",
        "resp_-1",
        "resp_1 ",
        "resp_\u0661",
        "resp_x",
        "chatcmpl-1",
        f"resp_{2**63}",
    ],
)
def test_any_other_text_is_no_id(text: str) -> None:
    assert ids.parse(IdPrefix.RESPONSE, text) is None
