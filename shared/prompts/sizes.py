"""How many bytes of a prompt's row a page has: pages are bounded by them before the texts are read."""


def _bytes(*texts: str) -> str:
    return " + ".join(f"coalesce(octet_length({text}), 0)" for text in texts)


#: What a list has of a prompt, in SQL on a row of `prompts`. PostgreSQL knows the length of a stored text without
#: reading it (`textoctetlen`). It reads metadata and tool calls for this, which few prompts have.
PROMPT_BYTES = _bytes(
    "prompts.prompt_text",
    "prompts.response_text",
    "prompts.error",
    "CAST(prompts.metadata AS text)",
    "CAST(prompts.tool_calls AS text)",
)
#: What an export has of it.
EXPORTED_BYTES = " + ".join(
    (PROMPT_BYTES, _bytes("CAST(prompts.request AS text)", "CAST(prompts.api_request AS text)"))
)
#: What its event has; the error is that of the entry in the feed.
EVENT_BYTES = PROMPT_BYTES.replace("prompts.error", "feed.error")
