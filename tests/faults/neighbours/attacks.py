"""All attacks, in the order of the table, and the checks that belong to one attack alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean

from sqlalchemy import text

from tests.faults.neighbours import connection_attacks, queue_attacks, user_attacks
from tests.faults.neighbours.attacker import Act
from tests.faults.neighbours.connection_attacks import FORGERY
from tests.faults.neighbours.stack import LOG, Stack
from tests.support.people import Person

_COMPLETED = """
SELECT user_id, count(*) FROM prompts
WHERE user_id = ANY(:users) AND status = 'completed' AND completed_at BETWEEN :start AND :end GROUP BY user_id"""
#: How far each share may be from the mean. The short form has too few prompts for that, and on a slow machine the
#: others are not queued all the time: then the user with many gets what they leave, but must not starve.
_SHARE_TOLERANCE, _LEAST_SHORT_SHARE = 0.1, 0.5


@dataclass(frozen=True)
class Period:
    """A finished attack: on what, by whom, and when."""

    stack: Stack
    users: Sequence[Person]
    started: datetime
    ended: datetime
    is_short: bool


#: Returns notes and breaches.
Check = Callable[[Period], tuple[list[str], list[str]]]


@dataclass(frozen=True)
class Attack:
    """An attack, how long it lasts, and what it may cost the neighbour at most.

    `answered_within` bounds the seconds until a prompt of the neighbour is answered, None for any time. `is_fast`
    means that it sends more than 1 MB/s, or makes the service work in other ways: then the 99th percentile is not
    bounded, only the slowest poll. `memory_mib` is how much more the processes may have some seconds later.
    """

    title: str
    act: Act
    seconds: float = 10
    short_seconds: float = 0.7
    answered_within: float | None = None
    is_fast: bool = False
    memory_mib: int = 60
    check: Check | None = None

    @property
    def name(self) -> str:
        return self.act.__name__


def find_forged_lines(period: Period) -> tuple[list[str], list[str]]:
    """Look for lines of the log that begin with what an attacker has sent, and for terminal sequences."""
    log = LOG.read_bytes().decode(errors="replace")
    forged = [line for line in log.splitlines() if line.lstrip().startswith(FORGERY)]
    controls = sum(log.count(control) for control in ("\x1b", "\x9b", "\u202e"))
    breaches = [f"{len(forged)} forged lines in the log"] * bool(forged)
    return [], breaches + [f"{controls} terminal sequences in the log"] * bool(controls)


def compare_shares(period: Period) -> tuple[list[str], list[str]]:
    """Compare how many prompts of each user were completed."""
    users = [user.id for user in period.users]
    with period.stack.engine.connect() as connection:
        times = {"users": users, "start": period.started, "end": period.ended}
        completed = dict(connection.execute(text(_COMPLETED), times).all())
    bulk, others = completed.get(users[0], 0), [number for user, number in completed.items() if user != users[0]]
    mean = fmean([bulk, *others])
    least, most = min(others, default=0), max(others, default=0)
    note = f"completed: {bulk} of the user with many, {least} to {most} of each of {len(others)} others"
    if period.is_short:
        is_fair = bulk >= _LEAST_SHORT_SHARE * mean
    else:
        is_fair = all(abs(number / mean - 1) <= _SHARE_TOLERANCE for number in (bulk, *others))
    return [note], [] if is_fair else [f"shares differ: {note}"]


ATTACKS = (
    Attack("a socket sends blank messages, 1 MB/s", connection_attacks.blank_messages),
    Attack("a socket sends pongs, 1 MB/s", connection_attacks.pongs),
    Attack("a socket sends pings, 1 MB/s", connection_attacks.pings),
    Attack("a message of empty fragments without end, 1 MB/s", connection_attacks.empty_fragments),
    Attack("pipelined GETs, not logged in, 0.15 MB/s", connection_attacks.pipelined_requests),
    Attack("endless bodies after 404 and 413, with a length and in chunks, 1 MB/s", connection_attacks.endless_bodies),
    Attack("logins with 60,000 unknown keys, 1 MB/s", connection_attacks.unknown_keys),
    Attack("malformed chunks, all answered with 400", connection_attacks.malformed_chunks),
    Attack("2,000 requests whose bodies never come", connection_attacks.missing_bodies, is_fast=True),
    # The heap keeps the memory of these connections for the next ones: a second attack like this added 33 MiB.
    Attack("20,000 half-sent requests", connection_attacks.half_sent_requests, is_fast=True, memory_mib=160),
    Attack("forged log lines in paths", connection_attacks.forged_log_lines, check=find_forged_lines),
    Attack("wrong passwords for the neighbour's name", connection_attacks.wrong_passwords),
    Attack("30 pages of 100 prompts of 100 KB, not read", user_attacks.unread_pages, is_fast=True),
    Attack("100,000 combining marks, as prompts and searches", user_attacks.combining_marks, is_fast=True),
    Attack("32 searches of 7.8 KB at a time", user_attacks.searches, is_fast=True),
    Attack("9,000 sockets and a streamed answer", user_attacks.sockets, is_fast=True),
    Attack("10,000 requests wait for a prompt that is cancelled", user_attacks.waiting_requests, is_fast=True),
    Attack("impossible announcements in Redis", user_attacks.impossible_announcements),
    Attack("prompts are cancelled and retried in a loop", queue_attacks.cancel_and_retry, is_fast=True),
    Attack("500 cancelled prompts are retried in a loop", queue_attacks.retried_hoard, is_fast=True),
    Attack("1,000 prompts queued by one user", queue_attacks.queue_of_one, answered_within=1),
    Attack("4,000 prompts queued by ten users", queue_attacks.queues_of_ten, answered_within=2),
    Attack(
        "1,000 prompts queued by one user, 20 others submit again at once",
        queue_attacks.equal_shares,
        seconds=60,
        short_seconds=2,
        check=compare_shares,
    ),
    Attack("1,000 prompts wait for an unavailable provider", queue_attacks.unavailable_provider),
)
