"""Our own processes are killed, and stopped one after the other."""

import random
import signal

from tests.faults.cluster import Cluster, Host
from tests.faults.outcome import Outcome
from tests.faults.run import Run, under_load
from tests.faults.scale import Scale

#: So often each is chosen, in a hundred.
_VICTIMS = {"worker child": 55, "worker host": 20, "API process": 15, "API host": 10}
#: What a client may see of a server that stops: no connection, or one that is closed before an answer has begun.
_CLEAN = {"200", "201", "202", "204", "refused", "409", "closed"}
#: A reaper may begin its round a moment late on a busy machine, and we look only now and then.
_TO_NOTICE_SECONDS = 1.0
#: If both hosts have been killed, there is no reaper until one has started.
_START_SECONDS = 8.0


def kills(cluster: Cluster, scale: Scale) -> Outcome:
    """kill -9 of random processes, while prompts are submitted.

    Recovery: until everything that was held by a worker at the kill has ended or is held by another.
    """
    chance = random.Random()
    with under_load(cluster, "kill -9 of processes", window=8, pause=0, prompts=scale.prompts) as run:
        run.may_exit = True  # as a Celery worker does when a child of it is killed before it has started
        for _ in range(scale.kills):
            run.expect(lambda: bool(run.witness.held()), 60, "work to be interrupted")
            while not _kill(cluster, chance):
                run.pause(0.1)
            run.interrupted()
            run.pause(chance.uniform(0.2, 2))
        run.expect(lambda: not any(member.is_busy for member in run.members[:-1]), 900, "the last submission")
    outcome, settings = run.outcome, cluster.settings
    outcome.require(outcome.accepted >= scale.prompts, f"only {outcome.accepted} prompts were submitted")
    period = settings.lease_seconds + settings.reaper_seconds
    outcome.bound(max(run.handed_out), period + _START_SECONDS, "handing out again")
    handed_out = sum(seconds <= period + _TO_NOTICE_SECONDS for seconds in run.handed_out)
    outcome.notes = (
        f"{handed_out} of {len(run.handed_out)} handed out again within lease + reaper + 1 s ({period + 1:g} s), "
        f"all within {max(run.handed_out):.1f} s; hosts that exited: {len(run.exits)}"
    )
    return outcome


def _kill(cluster: Cluster, chance: random.Random) -> bool:
    """Kills something, and returns whether there was anything: a host that starts has no children yet.

    A host that is killed is started again at once, as its supervisor would.
    """
    (victim,) = chance.choices(list(_VICTIMS), list(_VICTIMS.values()))
    host = chance.choice(cluster.workers if "worker" in victim else cluster.apis)
    if not victim.endswith("host"):
        return host.signal_child(signal.SIGKILL, chance)
    host.kill()
    host.start()
    return True


def rolling_restarts(cluster: Cluster, scale: Scale) -> Outcome:
    """SIGTERM of one process after the other, as a deployment does it, while long prompts are worked on.

    Recovery: from the SIGTERM of a worker host until another has taken what it handed back.
    """
    with under_load(cluster, "rolling restarts", members=4, window=4, pause=0.1, share_of_slow=0) as run:
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
    unclean = {answer: count for answer, count in outcome.answers.items() if answer not in _CLEAN}
    outcome.require(not unclean, f"requests failed: {unclean}")
    outcome.require(bool(outcome.recoveries), "no worker handed anything back")
    outcome.bound(outcome.slowest_recovery, 5, "going on elsewhere")
    outcome.bound(max(stops), 10, "a stop")
    outcome.notes = f"slowest stop {max(stops):.1f} s; failed requests: {unclean or 'none'}"
    return outcome


def _replace(run: Run, host: Host) -> float:
    """Stops it and starts it again. Returns how long the stop took."""
    taken = host.stop()
    run.outcome.faults += 1
    host.start()
    return taken


def _replace_at_work(run: Run, worker: Host) -> float:
    """Replaces a worker host while prompts run that take longer than it works on after SIGTERM."""
    long_ones = [run.members[0].submit("slow 40") for _ in range(3)]
    run.expect(lambda: set(long_ones) <= run.witness.held().keys(), 30, "the claim of long work")
    begun = run.witness.now()
    taken = _replace(run, worker)
    run.expect(lambda: run.witness.have_ended(long_ones), 60, "the end of long work")
    run.outcome.recoveries += run.witness.claims(long_ones, begun)
    return taken


def _replace_child(run: Run, api: Host) -> None:
    """Stops the processes of an API host, which starts others."""
    old = api.children()
    for child in old:
        child.terminate()
    run.outcome.faults += len(old)
    run.expect(
        lambda: bool(set(api.children()) - set(old)) and not any(child.is_running() for child in old),
        20,
        "another API process",
    )
