"""Reads an answer from the events that servers send: OpenAI's chunks, and the dialects of other servers.

No text is lost or invented. An answer needs a known end: a known finish_reason, `[DONE]` after text, or the end of a
completion that came whole. Anything else is an error.
"""

from collections.abc import Callable, Iterator
from typing import Any

from shared.errors import ProviderError
from shared.providers import Usage
from shared.providers.json_events import DONE, Event
from shared.providers.openai_chunks import (
    UnknownFinishReasonError,
    finish_reason,
    from_ollama,
    is_given,
    updated_usage,
)
from shared.providers.openai_error_payloads import is_error
from shared.providers.openai_errors import unexpected_response
from shared.providers.openai_tool_calls import ToolCalls
from shared.providers.surrogates import Joiner

_USUAL_KEYS = frozenset(
    {"id", "object", "created", "model", "choices", "system_fingerprint", "service_tier", "obfuscation"}
)
_USUAL_CHOICE_KEYS = frozenset({"index", "delta", "finish_reason", "logprobs"})
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
#: A repetition of this many characters is not chance.
_SURELY_REPEATED = 16
_REASONING_TYPES = frozenset({"thinking", "reasoning", "reasoning_text", "redacted_thinking"})


class AnswerError(Exception):
    """A response is not an answer: `error` says why. It has a type of its own, unlike errors of the connection."""

    def __init__(self, error: ProviderError) -> None:
        super().__init__(error)
        self.error = error


class AnswerReader:
    """Reads the events of one answer.

    Args:
        failure: Turns the error that a server describes into a `ProviderError`.
        offers_tools: Whether the model may call tools. Else calls are no answer.
    """

    def __init__(self, model: str, failure: Callable[[Any], ProviderError], *, offers_tools: bool = False) -> None:
        self.usage = Usage(model)
        self.is_done = False  #: whether what follows does not belong to the answer
        self._failure = failure
        self._joiner = Joiner()
        self._text: list[str] = []
        self._place = ""  # where the text stands in a choice
        self._is_cumulative = False  # whether each message has all of the text so far
        self._continues_after_end = False  # whether text came after a finish_reason
        self._has_other_choices = False
        self._has_events = False
        self._has_choices = False
        self._is_whole = False  # whether it is a completion that came whole, without a finish_reason
        self._has_reasoning = False
        self._offers_tools = offers_tools
        self._has_tool_calls = False
        self._tool_calls = ToolCalls()

    @property
    def is_complete(self) -> bool:
        """Whether the end of the answer has been seen, so that a failure after it does not matter.

        Servers that send a finish_reason with each piece do not say which is the last.
        """
        return self.is_done or (self.usage.finish_reason is not None and not self._continues_after_end)

    def read(self, event: Event) -> str:
        """Return the text that an event adds.

        Raises:
            AnswerError: it says that the server failed, or is something else.
        """
        payload = event.payload
        try:  # what almost all chunks are
            (choice,) = payload["choices"]
            text = choice["delta"]["content"]
            if (
                len(choice["delta"]) == 1
                and type(text) is str
                and choice["finish_reason"] is None
                and choice["index"] == 0
                and payload["model"] == self.usage.model
                and payload.keys() <= _USUAL_KEYS
                and choice.keys() <= _USUAL_CHOICE_KEYS
                and self._place == "delta"
                and self.usage.finish_reason is None
            ):
                text = self._joiner.join(text)
                self._text.append(text)
                return text
        except (KeyError, TypeError, ValueError):
            pass
        return self._read_any(event)

    def _read_any(self, event: Event) -> str:
        payload = event.payload
        self._has_events = True
        if payload is DONE:
            self.is_done = True
            return ""
        if event.name == "error":
            raise AnswerError(self._failure(payload))
        if isinstance(payload, list) and payload and event.is_document:
            return "".join(self.read(Event(each, is_document=True)) for each in payload)
        if not isinstance(payload, dict):
            raise AnswerError(unexpected_response())
        return self._read_object(payload, event.is_document)

    def end(self) -> str:
        """Return the rest of the text, after the last event. `usage` then has the tool calls.

        Raises:
            ProviderError: there is no answer, or not a whole one.
        """
        rest = self._joiner.flush()
        reason, has_text = self.usage.finish_reason, bool(rest or self._text)
        has_end = reason is not None or self._is_whole or (self.is_done and not self._has_other_choices)
        if has_end and (has_text or reason != "content_filter"):
            if calls := self._tool_calls.end(is_cut=reason == "length"):
                self.usage = self.usage._replace(tool_calls=calls)
            if has_text or calls:
                return rest
        raise self._no_answer(has_text)

    def _no_answer(self, has_text: bool) -> ProviderError:
        """The error of an answer without a known end, or without anything that a client can use."""
        reason = self.usage.finish_reason
        if reason == "content_filter":
            return ProviderError("The provider's content filter blocked the answer.", retryable=False)
        if has_text or (self._has_choices and not self.is_complete):
            return ProviderError("The provider's answer was incomplete: it ended without a finish_reason.")
        if self._has_events and not self.is_complete:
            return unexpected_response()
        if self._tool_calls:
            return ProviderError("The model reached its limit of tokens before its tool call was complete.")
        if self._has_tool_calls:
            return ProviderError("The model called a tool instead of answering, though it was offered none.")
        if self._has_reasoning and reason == "length":
            return ProviderError("The model reached its limit of tokens while reasoning, before it answered.")
        if self._has_reasoning:
            return ProviderError("The model sent its reasoning but no answer.")
        return ProviderError("The provider's answer was empty.")

    def _read_object(self, chunk: dict[str, Any], is_document: bool) -> str:
        self.usage = updated_usage(self.usage, chunk)
        choices = chunk.get("choices")
        if choices is None and "done" in chunk:  # Ollama's own API
            choices = [from_ollama(chunk)]
        if is_given(chunk.get("error")) or (not choices and is_error(chunk)):
            raise AnswerError(self._failure(chunk))
        if not choices:
            return ""
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise AnswerError(unexpected_response())
        self._has_choices = True
        for choice in choices:
            if choice.get("index") in (0, None, "0"):
                return self._read_choice(choice, is_document and not str(chunk.get("object")).endswith("chunk"))
        self._has_other_choices = True
        return ""

    def _read_choice(self, choice: dict[str, Any], is_whole: bool) -> str:
        if is_given(choice.get("error")):
            raise AnswerError(self._failure(choice))
        place, text = next((found for found in self._texts(choice) if found[1]), ("", ""))
        if text and self._text:
            self._continues_after_end = self._continues_after_end or self.usage.finish_reason is not None
            if place != self._place:
                text = self._unseen(text)
            elif place == "message":
                text = self._added(text)
        self.usage = updated_usage(self.usage, choice)
        self._read_finish_reason(choice)
        self._read_tool_calls(choice)
        has_calls = bool(self._tool_calls)
        self._is_whole = is_whole and (place in ("message", "text") or has_calls) and not self._text
        if text:
            self._place = self._place or place
            text = self._joiner.join(text)
            self._text.append(text)
        return text

    def _read_tool_calls(self, choice: dict[str, Any]) -> None:
        for place in ("delta", "message"):
            message = choice.get(place)
            if not isinstance(message, dict) or not (message.get("tool_calls") or message.get("function_call")):
                continue
            self._has_tool_calls = True
            if self._offers_tools:
                try:
                    self._tool_calls.read(message, is_whole=place == "message")
                except ProviderError as error:
                    raise AnswerError(error) from error

    def _texts(self, choice: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield the places where a choice may have its text, and what is there."""
        delta = choice.get("delta")
        yield "delta", delta if isinstance(delta, str) else self._text_of(delta or {})
        for place in ("text", "message"):
            yield place, self._text_of(choice.get(place))

    def _unseen(self, text: str) -> str:
        """Return what a text at another place adds: some servers send the whole answer once more after its pieces.

        It may differ in white space, and may lag behind.
        """
        sent = "".join(self._text)
        if text.startswith(sent):
            return text[len(sent) :]
        if not _without_space(sent).startswith(_without_space(text)):
            raise AnswerError(unexpected_response("it sends its answer twice, and differently"))
        return ""

    def _added(self, text: str) -> str:
        """Return what a further message adds: usually all of it, but some servers send the whole text so far each time.

        The second message tells. A message that repeats much and then does not is neither.
        """
        sent = "".join(self._text)
        repeats = text.startswith(sent) and (text != sent or len(sent) >= _SURELY_REPEATED)
        if len(self._text) == 1:
            self._is_cumulative = repeats
        if repeats != self._is_cumulative and (self._is_cumulative or len(sent) >= _SURELY_REPEATED):
            if text == sent:  # the end of a cumulative one
                return ""
            raise AnswerError(unexpected_response("it repeats parts of its answer"))
        return text[len(sent) :] if self._is_cumulative else text

    def _text_of(self, message: Any) -> str:
        """Return the text of a delta or a message; both are usually objects with a content."""
        if not isinstance(message, dict):
            return "".join(self._parts(message))
        if any(message.get(key) for key in _REASONING_KEYS):
            self._has_reasoning = True
        content = message.get("content")
        if content.__class__ is not str:
            content = "".join(self._parts(content))
        refusal = message.get("refusal")
        return content + refusal if refusal and isinstance(refusal, str) else content

    def _parts(self, content: Any) -> Iterator[str]:
        """Yield the texts of a content: a text, a part with a text, or a list of them."""
        if isinstance(content, str):
            yield content
        elif isinstance(content, list):
            for part in content:
                yield from self._parts(part)
        elif isinstance(content, dict):
            if content.get("type") in _REASONING_TYPES:
                self._has_reasoning = True
                return
            text = next((content[key] for key in ("text", "refusal", "content") if content.get(key)), None)
            yield from self._parts(text.get("value") if isinstance(text, dict) and "value" in text else text)
        elif content is not None:
            raise AnswerError(unexpected_response())

    def _read_finish_reason(self, choice: dict[str, Any]) -> None:
        try:
            reason = finish_reason(choice)
        except UnknownFinishReasonError as error:
            raise AnswerError(self._failure(f'its finish_reason is "{error}"')) from None
        if reason is not None:
            self.usage = self.usage._replace(finish_reason=reason)


def _without_space(text: str) -> str:
    return "".join(text.split())
