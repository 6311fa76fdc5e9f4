"""Waiting for the answer to a prompt, and what OpenAI's API says when there is none."""

import time

from api.realtime.long_poll import LongPoll
from shared.db.models import UNFINISHED, Status
from shared.errors import (
    AnswerPendingError,
    PromptCancelledError,
    PromptFailedError,
    PromptNotFoundError,
    PromptwireError,
    StoppingError,
)
from shared.prompts.queries import PromptRow

#: A little less than the ten minutes after which OpenAI's SDKs give up, and would send the request again.
MAX_SYNC_WAIT_SECONDS = 590


def wait(long_poll: LongPoll, user_id: int, prompt_id: int, found_at: str) -> PromptRow:
    """Wait until a prompt is completed. The caller holds a slot of the user's waiting requests.

    Args:
        found_at: Where its answer will be found, for errors.

    Raises:
        AnswerPendingError: it has not ended after MAX_SYNC_WAIT_SECONDS.
        StoppingError: this process is being stopped.
        PromptFailedError, PromptCancelledError: it has ended without an answer.
        PromptNotFoundError: there is no such prompt, it was deleted meanwhile, or its texts were removed.
    """
    deadline = time.monotonic() + MAX_SYNC_WAIT_SECONDS
    prompt = long_poll.wait_for_end(user_id, prompt_id, MAX_SYNC_WAIT_SECONDS)
    if prompt.status in UNFINISHED:
        raise pending(found_at) if time.monotonic() >= deadline else StoppingError()
    check_answered(prompt)
    return prompt


def check_answered(prompt: PromptRow) -> None:
    """Raise the error of a prompt that has ended without an answer, or whose answer was removed."""
    if error := unanswered(prompt):
        raise error
    if prompt.emptied_at is not None:
        raise PromptNotFoundError("The texts of this prompt were removed because of its age.")


def unanswered(prompt: PromptRow) -> PromptwireError | None:
    """The error of a prompt that has ended without an answer; None if it has one."""
    place = f"It is prompt {prompt.id}: GET /prompts/{prompt.id}/, and POST /prompts/{prompt.id}/retry/ tries again."
    if prompt.status == Status.FAILED:
        return PromptFailedError(f"The prompt failed: {prompt.error} {place}")
    if prompt.status == Status.CANCELLED:
        return PromptCancelledError(f"The prompt was cancelled. {place}")
    return None


def pending(found_at: str) -> AnswerPendingError:
    """The error of a caller that cannot wait any longer."""
    return AnswerPendingError(f"The prompt has not ended yet. It goes on; its answer will be found at GET {found_at}.")
