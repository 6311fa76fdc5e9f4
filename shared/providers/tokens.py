"""An estimate of how many tokens a text has, for providers that do not report it."""

#: OpenAI's rule of thumb for English (https://platform.openai.com/tokenizer).
BYTES_PER_TOKEN = 4


def estimate_tokens(text: str) -> int:
    """How many tokens a text has, about; at least 1."""
    return tokens_of_bytes(len(text.encode())) or 1


def tokens_of_bytes(count: int) -> int:
    """How many tokens this many bytes of UTF-8 are, about; rounded up."""
    return -(-count // BYTES_PER_TOKEN)
