"""The model server is killed and started again, and breaks its answers in the middle."""

import time

from tests.faults.load import LoadUser
from tests.faults.models.run import WAIT_SECONDS, ModelRun
from tests.faults.models.scale import Scale
from tests.support.streaming_server import WAYS_TO_BREAK

#: After the server's return, a probe follows within the longest pause (30 s, and its jitter); then all are answered.
_RETURN_SECONDS = 60.0


def provider_restarts(run: ModelRun, scale: Scale) -> None:
    """Kill the model server in the middle of its answers, and start it again on the same port later.

    An attempt that was interrupted in the middle has failed; all others wait, and their attempts do not count.
    Recovery: from the server's return until every prompt that waited has ended.
    """
    model, recorder = run.fleet.model, run.recorder
    answering = run.expect_busy(scale)
    before = recorder.now()
    model.kill()
    killed, started = recorder.now(), time.monotonic()
    run.outcome.faults += 1
    run.expect(lambda: _says_why(run), WAIT_SECONDS, "the reason why prompts wait")
    run.pause(max(0.0, scale.outage_seconds - (time.monotonic() - started)))
    waiting = {row[0] for row in recorder.unfinished([user.id for user in run.users])}
    returned = recorder.now()
    model.start()
    available_again = time.monotonic()
    run.expect(lambda: recorder.are_finished(list(waiting)), WAIT_SECONDS, "the end of the waiting prompts")
    run.outcome.recoveries.append(time.monotonic() - available_again)
    run.outcome.bound(run.outcome.recoveries[-1], _RETURN_SECONDS, "answering the waiting prompts")
    seconds = (killed - before).total_seconds()
    failed = [each for each in recorder.requeues(before) if each.reason == "failed"]
    interrupted = {each.prompt_id for each in failed if each.claimed <= seconds}
    run.excused.update(interrupted)
    run.notes.append(
        f"{answering} answers at a time, {len(interrupted)} failed in the middle; "
        f"{len(waiting)} prompts waited; "
        f"{recorder.claim_count(killed, returned)} attempts during the outage"
    )


def _says_why(run: ModelRun) -> bool:
    """Whether a waiting prompt says that it waits for its provider, and until when."""
    unfinished = run.recorder.unfinished([user.id for user in run.users])
    queued = {row[0] for row in unfinished if row[1] == "queued"}
    shown = (_show(user, prompt_id) for user in run.users for prompt_id in queued & set(user.accepted))
    reasons = (prompt.get("waiting_for") for prompt in shown)
    return any(each and each["reason"] == "provider" and each["detail"] and each["next_attempt_at"] for each in reasons)


def _show(user: LoadUser, prompt_id: int) -> dict:
    response = user.call("show", "GET", f"/prompts/{prompt_id}/")
    return response.json() if response is not None and response.is_success else {}


def broken_answers(run: ModelRun, scale: Scale) -> None:
    """Submit prompts whose answers are broken in the middle: the connection is reset, then closed, then the body ends.

    Each of these attempts fails. Recovery: from the submission until all have their whole text.
    """
    run.expect_busy(scale)
    started, submitted = run.recorder.now(), time.monotonic()
    broken = run.submit("broken", scale.broken)
    ids = [each.id for each in broken]
    run.excused.update(dict.fromkeys(ids, len(WAYS_TO_BREAK)))
    run.expect(lambda: run.recorder.are_finished(ids), WAIT_SECONDS, "the end of the broken prompts")
    run.outcome.recoveries.append(time.monotonic() - submitted)
    requeues = [each for each in run.recorder.requeues(started) if each.prompt_id in set(ids)]
    failed = sum(each.reason == "failed" for each in requeues)
    run.outcome.faults += failed
    expected = len(ids) * len(WAYS_TO_BREAK)
    run.outcome.require(failed == expected, f"{failed} broken answers were noticed, not {expected}")
    run.notes.append(f"{failed} answers broken, of {len(ids)} prompts")
