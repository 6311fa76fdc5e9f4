"""What admins see of all users' prompts: the queue and the failures. Texts of prompts are never shown.

Unfinished prompts are counted through a partial index, so those that have ended cost nothing.
"""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text

from shared.db.engine import Executor

#: The most rows of each part of the queue, and the most groups of failures.
MAX_ROWS = 100
#: How many failures are grouped, at most: the newest.
MAX_FAILURES = 10_000
#: An error is shown and grouped by its beginning.
ERROR_CHARACTERS = 200


class Load(NamedTuple):
    """The unfinished prompts of a model route, or of a user in it."""

    model: str
    user_id: int | None  #: None for all users
    username: str | None  #: None for all users, and if the account is deleted
    queued: int
    running: int
    oldest_waiting_seconds: float | None


class Running(NamedTuple):
    """A prompt that is being answered."""

    id: int
    user_id: int
    username: str | None  #: None if the account is deleted
    model: str
    attempt: int
    queued_at: datetime
    leased_until: datetime


class ProviderState(NamedTuple):
    """The state of a model route. `paused_until` is None while its provider is available, or an operator paused it."""

    model: str
    paused_until: datetime | None
    pause_detail: str | None
    unavailable_since: datetime | None
    failures: int
    concurrency: float | None  #: how many prompts are sent at a time, if its provider refused more
    held_since: datetime | None  #: since when an operator has paused it; None if none has
    held_by: int | None
    held_by_name: str | None  #: None if the account is deleted
    hold_reason: str | None


class FailureGroup(NamedTuple):
    """Failures with the same error."""

    error: str | None  #: its beginning; None if it was removed, because the prompt was old
    number: int  #: of failures
    users: int
    first_at: datetime
    last_at: datetime
    newest_prompt_id: int
    model: str | None  #: of that prompt; None if it was deleted


_LOAD = text("""
    WITH load AS MATERIALIZED (
        SELECT route, user_id, count(*) FILTER (WHERE status = 'queued') AS queued,
            count(*) FILTER (WHERE status = 'processing') AS running,
            CAST(extract(epoch FROM now() - min(queued_at) FILTER (WHERE status = 'queued')) AS float8) AS waiting
        FROM prompts WHERE due_at IS NOT NULL
        GROUP BY GROUPING SETS ((route), (route, user_id))
    )
    SELECT route, user_id, username, queued, running, waiting
    FROM load LEFT JOIN users ON users.id = user_id AND deleted_at IS NULL
    ORDER BY user_id IS NOT NULL, queued + running DESC, route, user_id LIMIT :limit
""")
_RUNNING = text("""
    SELECT prompts.id, user_id, username, route, attempt, queued_at, due_at
    FROM prompts LEFT JOIN users ON users.id = user_id AND deleted_at IS NULL
    WHERE status = 'processing' ORDER BY queued_at, prompts.id LIMIT :limit
""")
_PROVIDERS = text("""
    SELECT route, CASE WHEN paused_until > now() AND held_since IS NULL THEN paused_until END, pause_detail,
        CASE WHEN held_since IS NULL OR pause_detail IS NOT NULL THEN unavailable_since END, failures, concurrency,
        held_since, held_by, username, hold_reason
    FROM routes LEFT JOIN users ON users.id = held_by AND deleted_at IS NULL
    ORDER BY route LIMIT :limit
""")
_FAILURES = text("""
    WITH recent AS MATERIALIZED (
        SELECT left(error, :characters) AS error, user_id, prompt_id, at FROM feed
        WHERE change = 'failed' AND at > :since
            AND user_id <> ALL(ARRAY(SELECT id FROM users WHERE deleted_at IS NOT NULL))
        ORDER BY at DESC LIMIT :failures
    )
    SELECT grouped.*, route
    FROM (
        SELECT error, count(*) AS number, count(DISTINCT user_id), min(at), max(at) AS last_at,
            (array_agg(prompt_id ORDER BY at DESC))[1] AS newest
        FROM recent GROUP BY error ORDER BY number DESC, last_at DESC LIMIT :limit
    ) AS grouped
    LEFT JOIN prompts ON prompts.id = newest
    ORDER BY number DESC, last_at DESC
""")


def load(executor: Executor) -> list[Load]:
    """The unfinished prompts by model route, then those of the users who have the most."""
    return [Load(*row) for row in executor.execute(_LOAD, {"limit": 2 * MAX_ROWS})]


def running(executor: Executor) -> list[Running]:
    """The prompts that are being answered, those first that were queued first."""
    return [Running(*row) for row in executor.execute(_RUNNING, {"limit": MAX_ROWS})]


def providers(executor: Executor) -> list[ProviderState]:
    """The providers that were called."""
    return [ProviderState(*row) for row in executor.execute(_PROVIDERS, {"limit": MAX_ROWS})]


def unused(model: str) -> ProviderState:
    """The state of a model that was never used."""
    return ProviderState(model, None, None, None, 0, None, None, None, None, None)


def failures(executor: Executor, since: datetime) -> list[FailureGroup]:
    """The failures since then, at most MAX_FAILURES, grouped by error, the most frequent first.

    A prompt that was retried, and failed again, counts twice. Those of deleted accounts do not count.
    """
    parameters = {"since": since, "failures": MAX_FAILURES, "limit": MAX_ROWS, "characters": ERROR_CHARACTERS}
    return [FailureGroup(*row) for row in executor.execute(_FAILURES, parameters)]
