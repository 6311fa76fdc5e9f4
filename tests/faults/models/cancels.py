"""Prompts are cancelled while they are answered, and while their provider says nothing."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.faults.models.run import WAIT_SECONDS, ModelRun, Sent
from tests.faults.models.scale import Scale

#: From a cancel's response until the provider sees the end of its connection.
CLOSE_SECONDS = 2.0
_AT_A_TIME = 10


def cancels(run: ModelRun, scale: Scale) -> None:
    """Cancel half of the prompts that are being answered, those with the youngest answers.

    An answer that ends before the worker notices the cancel is not closed.
    Recovery: from the response to a cancel until the provider sees that its connection was closed.
    """
    cancelled = closed = 0
    for _ in range(scale.cancels):
        run.expect_busy(scale)
        counts = _cancel(run, _younger_half(run))
        cancelled, closed = cancelled + counts[0], closed + counts[1]
    run.outcome.require(closed > 0, "the provider saw no connection closed")
    run.notes.append(f"the provider saw {closed} of {cancelled} connections closed")


def silent_cancels(run: ModelRun, scale: Scale) -> None:
    """Cancel prompts to which the provider sends no byte, or nothing after the head of its answer.

    Recovery: as of `cancels`.
    """
    silent = [*run.submit("silent", scale.silent // 2), *run.submit("mute", scale.silent - scale.silent // 2)]
    texts = {each.text for each in silent}
    run.expect(lambda: run.fleet.model.stats()["silent"].keys() >= texts, WAIT_SECONDS, "the silent prompts")
    cancelled, closed = _cancel(run, silent)
    run.outcome.require(cancelled == closed == len(silent), f"the provider saw {closed} connections closed")
    run.notes.append(f"the provider saw {closed} of {len(silent)} connections closed")


def _younger_half(run: ModelRun) -> list[Sent]:
    answering = run.fleet.model.stats()["answering"]
    texts = sorted(answering, key=answering.__getitem__)[len(answering) // 2 :]
    ids = run.recorder.find(texts)
    return [Sent(user, ids[text], text) for user in run.users for text in texts if ids[text] in set(user.accepted)]


def _cancel(run: ModelRun, chosen: Sequence[Sent]) -> tuple[int, int]:
    """Cancel these, ten at a time. Return how many had not ended, and how many connections closed for it."""

    def cancel(each: Sent) -> float | None:
        each.user.cancel(each.id)
        return time.time() if each.id in each.user.cancelled else None

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        responses = dict(zip((each.text for each in chosen), pool.map(cancel, chosen), strict=True))
    cancelled = {text: at for text, at in responses.items() if at is not None}
    run.outcome.faults += len(cancelled)
    model = run.fleet.model
    run.expect(lambda: not cancelled.keys() & model.stats()["answering"].keys(), WAIT_SECONDS, "the end of the answers")
    closed = {text: at for text, at in model.stats()["closed"].items() if text in cancelled}
    for text, at in closed.items():
        taken = max(0.0, at - cancelled[text])
        run.outcome.recoveries.append(taken)
        run.outcome.bound(taken, CLOSE_SECONDS, "closing the connection of a cancelled prompt")
    return len(cancelled), len(closed)
