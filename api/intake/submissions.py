"""Storing submitted prompts, each once, and queueing them: those that come at the same time together.

A group costs one round trip to Redis for the limits, one INSERT and one commit, and one message on the queue.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from redis import Redis
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from api.intake.backlog import Backlog
from api.intake.group_commit import GroupCommit
from api.intake.submission_limits import SubmissionLimits, Verdict
from shared.db.engine import Executor, Sessions, is_unavailable
from shared.errors import InvalidTokenError, OverloadedError, PromptNotFoundError
from shared.messaging.queue import Queue
from shared.prompts import idempotency, queries, submission
from shared.prompts.idempotency import KeyUse
from shared.prompts.queries import PromptRow
from shared.prompts.submission import NewPrompt
from shared.settings import Settings
from shared.telemetry import metrics

MAX_GROUP_SIZE = 100
#: How many submissions may wait in a process while a group is stored, which takes some milliseconds.
MAX_WAITING = 500


@dataclass(frozen=True, slots=True)
class Stored:
    """A prompt, and whether it is the one of an earlier request."""

    prompt: PromptRow
    is_replay: bool = False


@dataclass(slots=True)
class _Submission:
    draft: NewPrompt
    use: KeyUse | None  #: of an idempotency key
    is_counted: bool = False  #: against the limits, which is done once, however often it is tried to store it
    verdict: Verdict = None


Outcome = Stored | Exception


class Submissions:
    """Takes submissions in."""

    def __init__(
        self, settings: Settings, sessions: Sessions, autocommit_engine: Engine, queue: Queue, redis: Redis
    ) -> None:
        self._grace, self._attempt_limit = settings.submit_grace, settings.max_attempts
        self._sessions = sessions
        self._autocommit_engine = autocommit_engine
        self._queue = queue
        self._limits = SubmissionLimits(redis, settings.prompt_rate_limit)
        self._backlog = Backlog(settings.backlog_limit)
        self._store = GroupCommit(self._store_group, largest=MAX_GROUP_SIZE, max_waiting=MAX_WAITING)

    @property
    def is_overloaded(self) -> bool:
        """Whether nothing can be taken in at the moment."""
        return self._backlog.is_full or self._store.is_full

    def store(self, draft: NewPrompt, use: KeyUse | None) -> Stored:
        """Stores and queues the prompt, unless its idempotency key was used before.

        Raises:
            IdempotencyKeyInUseError, IdempotencyKeyReusedError: see `shared/prompts/idempotency.py`.
            PromptNotFoundError: the prompt that the key made has been deleted.
            RateLimitedError: the user has submitted too much lately. (A replay does not count.)
            OverloadedError: everybody together has.
        """
        if self.is_overloaded:
            raise OverloadedError
        return self._store(_Submission(draft, use))

    def hand_out(self, prompt_ids: Sequence[int]) -> None:
        """Queues stored prompts; if the broker is away, the reaper does as soon as it is back."""
        if prompt_ids and not self._queue.enqueue(prompt_ids):
            with suppress(SQLAlchemyError), self._autocommit_engine.connect() as connection:  # else it waits its grace
                submission.make_due(connection, prompt_ids)

    def _store_group(self, group: Sequence[_Submission]) -> Sequence[Outcome]:
        has_keys = any(each.use is not None for each in group)
        # Without keys there is one statement to commit.
        begin = self._sessions.begin if has_keys else self._autocommit_engine.connect
        try:
            with begin() as executor:
                outcomes = self._take_in(executor, group)
        except Exception as error:
            if is_unavailable(error):
                raise
            if len(group) > 1:  # one of them hinders the others
                return [outcome for each in group for outcome in self._store_group([each])]
            return [InvalidTokenError("There is no such user.") if isinstance(error, IntegrityError) else error]
        added = [each.prompt.id for each in outcomes if isinstance(each, Stored) and not each.is_replay]
        self._backlog.added(len(added))
        metrics.submitted.inc(len(added))
        self.hand_out(added)
        return outcomes

    def _take_in(self, executor: Executor, group: Sequence[_Submission]) -> list[Outcome]:
        """What becomes of each, once it is committed."""
        outcomes = self._replays(executor, group)
        new = [place for place in range(len(group)) if place not in outcomes]
        room = self._backlog.room(executor, len(new))
        outcomes.update((place, OverloadedError()) for place in new[room:])
        new = new[:room]
        self._count([group[place] for place in new])
        outcomes.update((place, verdict) for place in new if (verdict := group[place].verdict) is not None)
        new = [place for place in new if place not in outcomes]
        if new:
            drafts = [group[place].draft for place in new]
            stored = submission.submit(executor, drafts, grace=self._grace, attempt_limit=self._attempt_limit)
            outcomes.update((place, Stored(prompt)) for place, prompt in zip(new, stored, strict=True))
            keyed = [(use, prompt.id) for place, prompt in zip(new, stored, strict=True) if (use := group[place].use)]
            if keyed:
                idempotency.remember(executor, keyed)
        return [outcomes[place] for place in range(len(group))]

    def _replays(self, executor: Executor, group: Sequence[_Submission]) -> dict[int, Outcome]:
        """Those that are settled by their idempotency keys, by their places in the group."""
        keyed = [(place, each.use) for place, each in enumerate(group) if each.use is not None]
        if not keyed:
            return {}
        outcomes: dict[int, Outcome] = {}
        for (place, use), made in zip(keyed, idempotency.reserve(executor, [use for _, use in keyed]), strict=True):
            if isinstance(made, Exception):
                outcomes[place] = made
            elif made is not None:
                try:
                    outcomes[place] = Stored(queries.get(executor, use.user_id, made), is_replay=True)
                except PromptNotFoundError as error:
                    outcomes[place] = error
        return outcomes

    def _count(self, group: Sequence[_Submission]) -> None:
        """Counts those against the limits that were not yet."""
        uncounted = [each for each in group if not each.is_counted]
        if not uncounted:
            return
        for each, verdict in zip(uncounted, self._limits.count([u.draft.user_id for u in uncounted]), strict=True):
            each.is_counted, each.verdict = True, verdict
