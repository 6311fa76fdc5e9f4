"""Worker hosts that answer in threads are killed and restarted."""

import random
import time

from tests.faults.cluster import Host
from tests.faults.models.run import WAIT_SECONDS, ModelRun, Sent
from tests.faults.models.scale import Scale

#: Tolerance for a late reaper round on a busy machine, and for our polling interval.
_TOLERANCE_SECONDS = 1.0
#: After SOFT_SHUTDOWN_SECONDS: interrupting all attempts, and ending the process.
_STOP_SECONDS = 4.0
_SIGNAL_SECONDS = 0.2
_PROCESSES = {"WORKER_POOL": "processes", "WORKER_PROCESSES": "2"}
_SILENT = 5


def host_kills(run: ModelRun, scale: Scale) -> None:
    """Kill one of the worker hosts with SIGKILL, again and again, while it answers many prompts.

    Recovery: from the kill until every prompt claimed at that moment has ended or is claimed again.
    """
    interrupted: list[int] = []
    run.may_lapse = True
    for number in range(scale.kills):
        interrupted.append(run.expect_busy(scale))
        _kill(run, run.fleet.workers[number % 2])
        run.expect_recovered(WAIT_SECONDS)
        run.expect_ready()
        run.pause(random.uniform(0, 1))
    settings = run.fleet.settings
    period = settings.lease_seconds + settings.reaper_seconds + _TOLERANCE_SECONDS
    slowest = max(run.released_after, default=0.0)
    run.outcome.bound(slowest, period, "releasing all claims")
    run.notes.append(
        f"{min(interrupted)} to {max(interrupted)} answers at a time; enqueued again within {slowest:.1f} s "
        f"(lease + reaper: {period - _TOLERANCE_SECONDS:g} s)"
    )


def _kill(run: ModelRun, host: Host, **environment: str) -> None:
    host.kill()
    run.note_fault()
    host.start(**environment)


def host_restarts(run: ModelRun, scale: Scale) -> None:
    """Stop one worker host after the other with SIGTERM, while it answers prompts for longer than its stop allows.

    Some of the prompts are silent. The last stop may take ten minutes, but gets signal after signal.
    Recovery: from the SIGTERM until the last prompt that the host released is claimed again.
    """
    silent = _submit_silent(run)
    stops: list[float] = []
    released = 0
    for number in range(scale.rolls):
        worker = run.fleet.workers[number % 2]
        is_last = number + 1 == scale.rolls
        run.expect_busy(scale)
        sent = run.recorder.now()
        stops.append(worker.stop())
        released += _start_again(run, worker, sent, **({"SOFT_SHUTDOWN_SECONDS": "600"} if is_last else {}))
    silent += _submit_silent(run)
    urgent = _stop_urgently(run, scale, worker)
    for each in silent:
        each.user.cancel(each.id)
    run.outcome.require(released > 0, "no worker released a prompt")
    run.outcome.bound(max(stops), run.fleet.settings.soft_shutdown_seconds + _STOP_SECONDS, "a stop")
    run.outcome.bound(urgent, _STOP_SECONDS, "a stop with a second SIGTERM")
    run.notes.append(
        f"{released} prompts released; slowest stop {max(stops):.1f} s, with a second SIGTERM {urgent:.1f} s"
    )


def _submit_silent(run: ModelRun) -> list[Sent]:
    """Submit silent prompts, and wait until they are being answered."""
    silent = [*run.submit("silent", _SILENT), *run.submit("mute", _SILENT)]
    texts = {each.text for each in silent}
    run.expect(lambda: run.fleet.model.stats()["silent"].keys() >= texts, WAIT_SECONDS, "the silent prompts")
    return silent


def _stop_urgently(run: ModelRun, scale: Scale, host: Host) -> float:
    """Stop a host by signal after signal, and start it again. Return how many seconds the stop took."""
    run.expect_busy(scale)
    sent, started = run.recorder.now(), time.monotonic()
    while host.is_running and time.monotonic() - started < WAIT_SECONDS:
        host.terminate()
        time.sleep(_SIGNAL_SECONDS)
    taken = time.monotonic() - started
    run.outcome.require(not host.is_running, "a worker host ignored a second SIGTERM")
    run.outcome.require(_start_again(run, host, sent) > 0, "a second SIGTERM released no prompt")
    return taken


def _start_again(run: ModelRun, host: Host, sent: object, **environment: str) -> int:
    """Start a host that was stopped by a signal sent then. Return how many prompts it has released."""
    run.outcome.faults += 1
    host.start(**environment)
    run.expect(lambda: not run.recorder.released(sent).waiting, WAIT_SECONDS, "the claims of the released prompts")
    released = run.recorder.released(sent)
    run.outcome.recoveries.append(released.slowest)
    run.expect_ready()
    return released.count


def mixed_hosts(run: ModelRun, scale: Scale) -> None:
    """Run one worker host with threads and one with processes. Kill each, and stop that with processes.

    Recovery: as of the kills and of the restarts.
    """
    run.may_lapse = True
    threads, processes = run.fleet.workers
    sent = run.recorder.now()
    processes.stop()
    _start_again(run, processes, sent, **_PROCESSES)
    run.expect_every_worker_to_consume()
    for host, environment in ((processes, _PROCESSES), (threads, {}))[: scale.mixed_kills]:
        run.expect_busy(scale)
        _kill(run, host, **environment)
        run.expect_recovered(WAIT_SECONDS)
        run.expect_ready()
    run.expect_busy(scale)
    run.expect_every_worker_to_consume()
    sent = run.recorder.now()
    processes.stop()
    released = _start_again(run, processes, sent)
    run.outcome.require(released > 0, "the host with processes released no prompt")
    run.notes.append(f"released by the host with processes: {released}")
