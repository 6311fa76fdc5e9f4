"""Our own processes are killed, and restarted one after the other."""

import random
import signal

from tests.faults.cluster import Cluster, Host
from tests.faults.outcome import Outcome
from tests.faults.run import Run, under_load
from tests.faults.scale import Scale

#: How often each is chosen, in percent.
_VICTIM_WEIGHTS = {"worker child": 55, "worker host": 20, "API process": 15, "API host": 10}
#: What a client may see while a server stops: answers, no connection, or one closed before any response byte.
_CLEAN_ANSWERS = {"200", "201", "202", "204", "refused", "409", "closed"}
#: Tolerance for a late reaper round on a busy machine, and for our polling interval.
_TOLERANCE_SECONDS = 1.0


def kills(cluster: Cluster, scale: Scale) -> Outcome:
    """Kill random processes with SIGKILL while users submit prompts.

    Recovery: from the kill until every prompt claimed at that moment has ended or is claimed by another worker.
    """
    rng = random.Random()
    with under_load(cluster, "kill -9 of processes", window=8, pause=0, prompts=scale.prompts) as run:
        run.may_exit = True  # a Celery worker exits if a child is killed while it starts
        for _ in range(scale.kills):
            run.expect(lambda: bool(run.recorder.claimed()), 60, "work to interrupt")
            while not kill_any(cluster, rng):
                run.pause(0.1)
            run.note_fault()
            run.pause(rng.uniform(0.2, 2))
        run.expect(lambda: not any(user.is_busy for user in run.users[:-1]), 900, "the last submission")
    outcome, settings = run.outcome, cluster.settings
    outcome.require(outcome.accepted >= scale.prompts, f"only {outcome.accepted} prompts were submitted")
    period = settings.lease_seconds + settings.reaper_seconds
    outcome.bound(max(run.released_after), period + _TOLERANCE_SECONDS, "releasing all claims")
    outcome.notes = (
        f"enqueued again within {max(run.released_after):.1f} s in which a worker host ran (lease + reaper + 1 s: "
        f"{period + _TOLERANCE_SECONDS:g} s), and {run.seconds_without_worker:.0f} s in which none ran; hosts that "
        f"exited: {len(run.exits)}"
    )
    return outcome


def kill_any(cluster: Cluster, rng: random.Random) -> bool:
    """Kill a random process. Return False if there was none, because a starting host has no children yet.

    A killed host is restarted immediately, as its supervisor would do.
    """
    (victim,) = rng.choices(list(_VICTIM_WEIGHTS), list(_VICTIM_WEIGHTS.values()))
    host = rng.choice(cluster.workers if "worker" in victim else cluster.apis)
    if not victim.endswith("host"):
        return host.signal_child(signal.SIGKILL, rng)
    host.kill()
    host.start()
    return True


def rolling_restarts(cluster: Cluster, scale: Scale) -> Outcome:
    """Stop one process after the other with SIGTERM, as a deployment does, during long generations.

    Recovery: from the SIGTERM of a worker host until another has claimed the prompts that it released.
    """
    with under_load(cluster, "rolling restarts", users=4, window=4, pause=0.1, share_of_slow=0) as run:
        stops: list[float] = []
        for _ in range(scale.rolls):
            for worker in cluster.workers:
                stops.append(_replace_at_work(run, worker))
                cluster.wait_until_ready()
            for api in cluster.apis:
                _replace_child(run, api)
                cluster.wait_until_ready()
                stops.append(_replace(run, api))
                cluster.wait_until_ready()
    outcome = run.outcome
    unclean = {answer: count for answer, count in outcome.answers.items() if answer not in _CLEAN_ANSWERS}
    outcome.require(not unclean, f"requests failed: {unclean}")
    outcome.require(bool(outcome.recoveries), "no worker released a prompt")
    outcome.bound(outcome.slowest_recovery, 5, "the claim by another worker")
    outcome.bound(max(stops), 10, "a stop")
    outcome.notes = f"slowest stop {max(stops):.1f} s; failed requests: {unclean or 'none'}"
    return outcome


def _replace(run: Run, host: Host) -> float:
    """Restart the host. Return how long the stop took."""
    taken = host.stop()
    run.outcome.faults += 1
    host.start()
    return taken


def _replace_at_work(run: Run, worker: Host) -> float:
    """Restart a worker host while it generates for longer than its soft shutdown allows."""
    long_prompts = [run.users[0].submit("slow 40") for _ in range(3)]
    run.expect(lambda: set(long_prompts) <= run.recorder.claimed().keys(), 30, "the claims of the long prompts")
    started = run.recorder.now()
    taken = _replace(run, worker)
    run.expect(lambda: run.recorder.are_finished(long_prompts), 60, "the end of the long prompts")
    run.outcome.recoveries += run.recorder.claims(long_prompts, started)
    return taken


def _replace_child(run: Run, api: Host) -> None:
    """Stop the child processes of an API host, which then starts others."""
    old = api.children()
    for child in old:
        child.terminate()
    run.outcome.faults += len(old)
    run.expect(
        lambda: bool(set(api.children()) - set(old)) and not any(child.is_running() for child in old),
        20,
        "a new API process",
    )
