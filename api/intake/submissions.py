"""Storing submitted prompts, each once, and waking up workers. Submissions at the same time are stored together.

A group costs one round trip to Redis for the limits, one INSERT and one commit, and one message on the queue.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from redis import Redis
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from api.auth.api_keys import check_model
from api.auth.principal import KeyGrant
from api.http.rate_limits import RateLimitedError
from api.intake.backlog import Backlog
from api.intake.group_commit import GroupCommit
from api.intake.submission_limits import Caller, SubmissionLimits
from shared.accounts import budgets
from shared.accounts.budgets import Estimator, Reservation
from shared.db.engine import Executor, Sessions, is_unavailable
from shared.errors import InvalidTokenError, OverloadedError, PromptNotFoundError, UnknownModelError
from shared.messaging.queue import Queue
from shared.prompts import idempotency, queries, scheduling, submission
from shared.prompts.idempotency import KeyUse
from shared.prompts.queries import PromptRow
from shared.prompts.submission import NewPrompt, PromptLimits
from shared.settings import Settings
from shared.telemetry import metrics

MAX_GROUP_SIZE = 100
#: How many submissions of a process may wait while a group is stored, which takes some milliseconds.
MAX_WAITING = 500
#: Nobody else may wait behind a whole group whose first submission has waited for this many seconds.
MAX_WAIT = 0.2
#: How long a group gathers at most after the one before, in seconds.
MAX_PAUSE = 0.005


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored prompt, and whether an earlier request with the same idempotency key stored it."""

    prompt: PromptRow
    is_replay: bool = False


Outcome = Stored | Exception


@dataclass(slots=True)
class _Submission:
    """A submission on its way: it has no outcome until it is stored or refused."""

    prompt: NewPrompt
    key: KeyUse | None
    caller: Caller
    is_counted: bool = False  #: against the rate limit: once, however often storing it is tried
    rate_limited: RateLimitedError | None = None
    outcome: Outcome | None = None


class Submissions:
    """Accepts submissions."""

    def __init__(
        self, settings: Settings, sessions: Sessions, autocommit_engine: Engine, queue: Queue, redis: Redis
    ) -> None:
        self._grace, self._attempt_limit = settings.submit_grace, settings.max_attempts
        self._sessions = sessions
        self._autocommit_engine = autocommit_engine
        self._queue = queue
        self._limits = SubmissionLimits(redis, settings.prompt_rate_limit, queue)
        self._backlog = Backlog(settings.backlog_limit)
        self._user_limits = PromptLimits(
            settings.user_backlog_limit, settings.user_running_limit, settings.user_monthly_tokens
        )
        self._estimators = {route: Estimator(model) for route, model in settings.models.items()}
        self._store = GroupCommit(
            self._store_group,
            max_size=MAX_GROUP_SIZE,
            max_waiting=MAX_WAITING,
            max_pause=MAX_PAUSE,
            max_wait=MAX_WAIT,
        )

    @property
    def is_overloaded(self) -> bool:
        """Whether no submission can be accepted at the moment."""
        return self._backlog.is_full or self._store.is_full

    def store(self, prompt: NewPrompt, key: KeyUse | None, api_key: KeyGrant | None = None) -> Stored:
        """Store the prompt and wake up a worker, unless its idempotency key was used before.

        Raises:
            NotAllowedError: the caller's API key may not use the prompt's model.
            IdempotencyKeyInUseError, IdempotencyKeyReusedError: see `shared/prompts/idempotency.py`.
            PromptNotFoundError: the prompt of an earlier request with this key has been deleted.
            RateLimitedError: the user or the API key has submitted too much recently. (A replay does not count.)
            UserLimitError: the user has too many unfinished prompts.
            BudgetExceededError: a budget has too few tokens left.
            OverloadedError: all users together have too many unfinished prompts.
        """
        check_model(api_key, prompt.route)
        if self.is_overloaded:
            raise OverloadedError
        if reserved := self._reserved_tokens(prompt, api_key):
            prompt = prompt._replace(reserved_tokens=reserved)
        return self._store(_Submission(prompt, key, Caller(prompt.user_id, api_key)))

    def retry(self, user_id: int, prompt_id: int, api_key: KeyGrant | None = None) -> PromptRow:
        """Queue a failed or cancelled prompt again. It counts as a submission, against every limit.

        Raises:
            PromptNotFoundError, NotEndedError, UserLimitError, BudgetExceededError: see `shared/prompts/submission.py`.
            NotAllowedError, RateLimitedError, OverloadedError: see `store`.
            UnknownModelError: the model route of the prompt is no longer there.
        """
        if self.is_overloaded:
            raise OverloadedError
        with self._autocommit_engine.connect() as connection:
            ended = submission.check_retriable(connection, user_id, prompt_id)
            check_model(api_key, ended.route)
            if ended.route not in self._estimators:
                raise UnknownModelError(f"There is no model {ended.route} any more. Submit a new prompt.", ["model"])
            if not self._backlog.room(connection, 1):
                raise OverloadedError
        (verdict,) = self._limits.count([Caller(user_id, api_key)])
        if verdict is not None:
            raise verdict
        with self._sessions.begin() as session:
            prompt = submission.retry(
                session,
                user_id,
                prompt_id,
                grace=self._grace,
                attempts=self._attempt_limit,
                limits=self._user_limits,
                key_id=None if api_key is None else api_key.id,
                reserved_tokens=self._reserved_tokens(ended, api_key),
            )
        self._backlog.added(1)
        self._queue.wake(prompt.route, 1)
        return prompt

    def grant_next_turn(self, user_id: int) -> None:
        """With USER_RUNNING_LIMIT: give the user's oldest waiting prompt a turn, because another prompt has ended."""
        if self._user_limits.running is None:
            return
        limit = self._user_limits.running
        with suppress(SQLAlchemyError):  # the reaper does it then
            with self._sessions.begin() as session:
                granted = scheduling.grant_turns(session, [user_id], grace=self._grace, running_limit=limit)
            for route, count in granted.items():
                self._queue.wake(route, count)

    def _reserved_tokens(self, prompt: NewPrompt | PromptRow, api_key: KeyGrant | None) -> int:
        key_budget = None if api_key is None else api_key.monthly_tokens
        estimator = self._estimators[prompt.route]
        return estimator.tokens(prompt.prompt_text, prompt.history, key_budget, prompt.request)

    def _store_group(self, group: Sequence[_Submission]) -> Sequence[Outcome]:
        """The outcome of each submission of a group, once it is committed."""
        # Without idempotency keys and budgets there is a single statement to commit.
        is_single = all(each.key is None and not each.prompt.reserved_tokens for each in group)
        begin = self._autocommit_engine.connect if is_single else self._sessions.begin
        try:
            with begin() as executor:
                self._resolve_keys(executor, group)
                self._refuse_excess(executor, _pending(group))
                self._refuse_over_budget(executor, _pending(group))
                self._insert(executor, _pending(group))
        except Exception as error:
            if is_unavailable(error):
                raise
            return self._store_each(group, error)
        outcomes = [each.outcome for each in group if each.outcome is not None]
        routes = Counter(each.prompt.route for each in outcomes if isinstance(each, Stored) and not each.is_replay)
        self._backlog.added(routes.total())
        metrics.submitted.inc(routes.total())
        for route, count in routes.items():
            self._queue.wake(route, count)
        return outcomes

    def _store_each(self, group: Sequence[_Submission], error: Exception) -> Sequence[Outcome]:
        """The outcomes of a group that was rolled back: one of the submissions may have failed all of them."""
        for each in group:
            each.outcome = None
        if len(group) > 1:
            return [outcome for each in group for outcome in self._store_group([each])]
        return [InvalidTokenError("There is no such user.") if isinstance(error, IntegrityError) else error]

    def _resolve_keys(self, executor: Executor, group: Sequence[_Submission]) -> None:
        """Decide on the submissions whose idempotency key was used before, or is in use."""
        keyed = [(each, each.key) for each in group if each.key is not None]
        if not keyed:
            return
        reservations = idempotency.reserve(executor, [key for _, key in keyed])
        used = [reservation for reservation in reservations if isinstance(reservation, int)]
        prompts = queries.get_all(executor, used) if used else {}
        for (each, _), reservation in zip(keyed, reservations, strict=True):
            if isinstance(reservation, Exception):
                each.outcome = reservation
            elif reservation is not None:
                prompt = prompts.get(reservation)
                each.outcome = PromptNotFoundError() if prompt is None else Stored(prompt, is_replay=True)

    def _refuse_excess(self, executor: Executor, pending: Sequence[_Submission]) -> None:
        """Refuse the submissions that exceed the backlog, or the rate limit of their user or API key."""
        room = self._backlog.room(executor, len(pending))
        for each in pending[room:]:
            each.outcome = OverloadedError()
        admitted = pending[:room]
        uncounted = [each for each in admitted if not each.is_counted]
        if uncounted:
            verdicts = self._limits.count([each.caller for each in uncounted])
            for each, verdict in zip(uncounted, verdicts, strict=True):
                each.is_counted, each.rate_limited = True, verdict
        for each in admitted:
            each.outcome = each.rate_limited

    def _refuse_over_budget(self, executor: Executor, pending: Sequence[_Submission]) -> None:
        """Refuse the submissions that their budgets have no room for."""
        wanted = [Reservation(each.prompt.user_id, each.prompt.key_id, each.prompt.reserved_tokens) for each in pending]
        if not any(each.reserved_tokens for each in wanted):
            return
        scheduling.lock_users(executor, [each.user_id for each in wanted])
        verdicts = budgets.check(executor, wanted, self._user_limits.monthly_tokens)
        for each, verdict in zip(pending, verdicts, strict=True):
            each.outcome = verdict

    def _insert(self, executor: Executor, pending: Sequence[_Submission]) -> None:
        if not pending:
            return
        new = [each.prompt for each in pending]
        stored = submission.submit(
            executor, new, grace=self._grace, attempt_limit=self._attempt_limit, limits=self._user_limits
        )
        keyed = []
        for each, prompt in zip(pending, stored, strict=True):
            if prompt is None:
                each.outcome = submission.backlog_error(self._user_limits.backlog)
                continue
            each.outcome = Stored(prompt)
            if each.key is not None:
                keyed.append((each.key, prompt.id))
        if keyed:
            idempotency.remember(executor, keyed)


def _pending(group: Sequence[_Submission]) -> list[_Submission]:
    return [each for each in group if each.outcome is None]
