"""Reads what chunks of an answer say besides its text: why it ended, and its usage."""

from collections.abc import Mapping
from typing import Any

from shared.providers import Usage

#: OpenAI's finish_reasons, and what others call them, in lower case.
_FINISH_REASONS: Mapping[str, str] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "end", "done", "stop_token"), "stop"),
    **dict.fromkeys(
        ("complete", "completed", "finish", "finished", "finish_reason_stop", "normal", "eosfound"), "stop"
    ),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens", "max_length", "max_new_tokens"), "length"),
    **dict.fromkeys(("token_limit", "model_length", "model_context_window_exceeded", "truncated"), "length"),
    **dict.fromkeys(("maxpredictedtokensreached", "contextlengthreached"), "length"),
    **dict.fromkeys(("content_filter", "content_filtered", "safety", "recitation", "blocklist"), "content_filter"),
    **dict.fromkeys(("prohibited_content", "spii", "sensitive", "guardrail_intervened", "refusal"), "content_filter"),
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use", "function_call"), "tool_calls"),
}
_NO_REASONS = frozenset({"null", "none", "load", "unload"})


class UnknownFinishReasonError(Exception):
    """A server ends its answer for a reason that has no known meaning, which is the argument."""


def finish_reason(choice: Mapping[str, Any]) -> str | None:
    """The finish_reason of a choice, as OpenAI calls it; None if it has none.

    Raises:
        UnknownFinishReasonError: nobody knows whether the answer is whole.
    """
    reason = choice.get("finish_reason")
    if not reason:  # the usual case
        if reason is not None or not isinstance(choice.get("stop_reason"), str):
            return None
        reason = choice["stop_reason"]
    if isinstance(reason, dict):
        reason = reason.get("type")
    name = str(reason).strip().lower()
    if not name or name in _NO_REASONS:
        return None
    if name not in _FINISH_REASONS:
        raise UnknownFinishReasonError(reason)
    return _FINISH_REASONS[name]


def updated_usage(known: Usage, chunk: Mapping[str, Any]) -> Usage:
    """What is known after a further chunk.

    Servers report usage in a chunk of its own, with the last words, or cumulatively with each chunk.
    """
    model, usage = chunk.get("model"), chunk.get("usage")
    if model and model != known.model and isinstance(model, str):
        known = known._replace(model=model)
    if usage is None and isinstance(chunk.get("x_groq"), dict):
        usage = chunk["x_groq"].get("usage")
    if isinstance(usage, dict):
        prompt = _count(usage, "prompt_tokens", "input_tokens", "prompt_eval_count")
        completion = _count(usage, "completion_tokens", "output_tokens", "eval_count")
        known = known._replace(
            prompt_tokens=known.prompt_tokens if prompt is None else prompt,
            completion_tokens=known.completion_tokens if completion is None else completion,
        )
    return known


def from_ollama(chunk: Mapping[str, Any]) -> dict[str, Any]:
    """An object of Ollama's own API as a choice; `done` says that it is the last."""
    message = chunk.get("message") or {"content": chunk.get("response")}
    ended = (chunk.get("done_reason") or "stop") if chunk["done"] else None
    return {"delta": message, "finish_reason": ended, "usage": chunk}


def is_given(error: Any) -> bool:
    """Whether an error says anything: some servers send its fields with each chunk, without values."""
    return any(error.values()) if isinstance(error, dict) else bool(error)


def _count(usage: Mapping[str, Any], *keys: str) -> int | None:
    """The first of these numbers of tokens that is one."""
    for key in keys:
        value = usage.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None
