"""Messages about invalid parameters, as OpenAI's API writes them."""

import re


def parameter_name(field: str) -> str:
    """The name of a field as OpenAI writes it: `messages[0].content`."""
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", field)


def sentence(field: str, message: str) -> str:
    """A message that says what a field must be, with the field's name; any other message as it is."""
    return message if not field or not message[:1].islower() else f"{field} {message}."
