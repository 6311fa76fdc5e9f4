"""Budgets: how many tokens the prompts of an API key, and those of a user, may use in a calendar month (UTC).

    spent = what the ledger has of this month + what unfinished prompts reserve

A submission that may exceed a budget reserves what it will use at most, as far as that is known (`Estimator`). It is
refused if that is more than is left. The reservation is a column of the prompt that counts while the prompt is
unfinished. So every end of a prompt releases its reservation, and none can leak. If the prompt is cancelled or deleted
while a worker answers it, the reservation counts until the worker has recorded what it used, or its lease lapses.
A batch reserves what its lines that have not ended reserve, in a column of its own (`shared/batches`).

`read` gives the numbers by which submissions are refused, and those that users see.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import Row, insert, text

from shared.db.engine import Executor
from shared.db.models import AbandonedAttempt, Prompt, Status
from shared.errors import BudgetExceededError
from shared.providers import GenerationRequest
from shared.providers.model_request import ModelRequest
from shared.providers.simulated import SimulatedGenerator
from shared.providers.tokens import BYTES_PER_TOKEN, estimate_tokens
from shared.settings import Settings

# In one statement, so that a prompt that ends meanwhile counts either as unfinished or as used. Budgets of keys that
# were revoked just now count, too: a request may have been authenticated before. Of older ones there may be very many.
_READ = text("""
    WITH month AS (
        SELECT date_trunc('month', statement_timestamp() AT TIME ZONE 'UTC') AS start
    ), spent AS (
        SELECT user_id, 0 AS key_id, 0 AS used, 0 AS reserved FROM unnest(CAST(:user_ids AS bigint[])) AS given(user_id)
        UNION ALL
        SELECT user_id, key_id, prompt_tokens + completion_tokens, 0
        FROM usage
        WHERE user_id = ANY(:user_ids) AND day >= (SELECT CAST(start AS date) FROM month)
        UNION ALL
        SELECT user_id, coalesce(key_id, 0), 0, reserved_tokens
        FROM prompts
        WHERE user_id = ANY(:user_ids) AND due_at IS NOT NULL AND batch_id IS NULL
        UNION ALL
        SELECT user_id, coalesce(key_id, 0), 0, reserved_tokens
        FROM batches
        WHERE user_id = ANY(:user_ids) AND due_at IS NOT NULL
        UNION ALL
        SELECT user_id, key_id, 0, reserved_tokens FROM abandoned_attempts
        WHERE user_id = ANY(:user_ids) AND until > statement_timestamp()
        UNION ALL
        SELECT user_id, id, 0, 0 FROM api_keys
        WHERE user_id = ANY(:user_ids) AND monthly_tokens IS NOT NULL
            AND (revoked_at IS NULL OR revoked_at > statement_timestamp() - interval '1 minute')
    )
    SELECT spent.user_id, key_id, CAST(sum(used) AS bigint) AS used, CAST(sum(reserved) AS bigint) AS reserved,
        monthly_tokens, revoked_at IS NOT NULL AS is_revoked,
        (SELECT (start + interval '1 month') AT TIME ZONE 'UTC' FROM month) AS resets_at
    FROM spent LEFT JOIN api_keys ON api_keys.id = key_id AND api_keys.user_id = spent.user_id
    GROUP BY spent.user_id, key_id, monthly_tokens, revoked_at
    ORDER BY spent.user_id, key_id
""")


#: The columns of a prompt that `keep_reserved` needs.
RESERVED = (
    *(Prompt.id, Prompt.attempt, Prompt.status, Prompt.user_id, Prompt.key_id),
    *(Prompt.reserved_tokens, Prompt.due_at),
)


class Budget(NamedTuple):
    """The state of a budget. Numbers are tokens."""

    key_id: int | None  #: None for the budget of all of a user's prompts
    monthly_tokens: int
    used_tokens: int
    reserved_tokens: int
    resets_at: datetime  #: when the next month begins
    is_revoked: bool = False  #: whether the API key is

    @property
    def left(self) -> int:
        """How much may still be reserved; negative if prompts have used more than they reserved."""
        return self.monthly_tokens - self.used_tokens - self.reserved_tokens


class Reservation(NamedTuple):
    """What a submission reserves: for which user and API key, and how many tokens."""

    user_id: int
    key_id: int | None
    reserved_tokens: int


class Estimator:
    """How much a prompt reserves of its budgets.

    The simulated generator uses exactly that. Another one may use more, if its answers are longer than
    RESERVED_OUTPUT_TOKENS and their length is not limited, or if failed attempts are repeated.
    """

    def __init__(self, settings: Settings) -> None:
        self._user_budget = settings.user_monthly_tokens
        self._is_simulated = settings.generator == "simulated"
        self._usual_answer, self._max_answer = settings.reserved_output_tokens, None
        self._history = -(-settings.history_characters // BYTES_PER_TOKEN)
        self._instructions = 0
        if settings.generator == "openai":
            self._max_answer = settings.openai_max_tokens
            self._instructions = estimate_tokens(settings.openai_system_prompt) if settings.openai_system_prompt else 0

    def tokens(
        self, prompt_text: str, history: int, key_budget: int | None, request: Mapping[str, Any] | None = None
    ) -> int:
        """The tokens that a prompt reserves: at least 1, or 0 if neither its key nor its user has a budget.

        Args:
            request: What it asks for besides its text, a `ModelRequest` as JSON.
        """
        if self._user_budget is None and key_budget is None:
            return 0
        whole = GenerationRequest(prompt_text, asked=ModelRequest.from_json(request))
        if self._is_simulated:
            return sum(SimulatedGenerator.usage_of(whole))
        context = self._history if history else 0
        answer = self._answer(whole.asked.max_output_tokens)
        return self._instructions + context + sum(map(estimate_tokens, whole.texts)) + answer

    def _answer(self, asked: int | None) -> int:
        """The tokens of the answer, if the prompt limits them to `asked`."""
        limits = [limit for limit in (asked, self._max_answer) if limit is not None]
        return min(limits, default=self._usual_answer)


def read(executor: Executor, user_ids: Sequence[int], user_budget: int | None) -> dict[int, list[Budget]]:
    """The budgets of these users and of their API keys, by user. `user_budget` is USER_MONTHLY_TOKENS."""
    found: dict[int, list[Budget]] = {}
    rows = executor.execute(_READ, {"user_ids": list(user_ids)})
    for user_id, group in groupby(rows, key=attrgetter("user_id")):
        lines = list(group)  # one for each key, and one for logins
        budgets = found[user_id] = []
        if user_budget is not None:
            used, reserved = sum(line.used for line in lines), sum(line.reserved for line in lines)
            budgets.append(Budget(None, user_budget, used, reserved, lines[0].resets_at))
        for line in lines:
            if line.monthly_tokens is not None:
                state = (line.used, line.reserved, line.resets_at, line.is_revoked)
                budgets.append(Budget(line.key_id, line.monthly_tokens, *state))
    return found


def check(
    executor: Executor, wanted: Sequence[Reservation], user_budget: int | None
) -> list[BudgetExceededError | None]:
    """Decide on submissions, in this order: None for those that their budgets have room for, or the error.

    The caller holds the users' locks (`scheduling.lock_users`) until it has stored the prompts.
    """
    user_ids = sorted({each.user_id for each in wanted if each.reserved_tokens})
    state = read(executor, user_ids, user_budget)
    added: dict[tuple[int, int | None], int] = defaultdict(int)
    verdicts: list[BudgetExceededError | None] = []
    for user_id, key_id, reserved in wanted:
        budgets = [each for each in state.get(user_id, ()) if each.key_id in (None, key_id)] if reserved else []
        exceeded = next((each for each in budgets if added[user_id, each.key_id] + reserved > each.left), None)
        verdicts.append(None if exceeded is None else _error(exceeded, reserved, added[user_id, exceeded.key_id]))
        if exceeded is None:
            for each in budgets:
                added[user_id, each.key_id] += reserved
    return verdicts


def keep_reserved(executor: Executor, prompt: Row[*tuple[Any, ...]]) -> None:
    """Keep what a cancelled or deleted prompt has reserved, if an attempt at it runs on. `claims.settle` releases it.

    Args:
        prompt: Its columns RESERVED, and perhaps others, as they were before.
    """
    if prompt.status != Status.PROCESSING or not prompt.reserved_tokens:
        return
    values = {
        "prompt_id": prompt.id,
        "attempt": prompt.attempt,
        "user_id": prompt.user_id,
        "key_id": prompt.key_id or 0,
        "reserved_tokens": prompt.reserved_tokens,
        "until": prompt.due_at,
    }
    executor.execute(insert(AbandonedAttempt).values(values))


def purge(executor: Executor) -> None:
    """Delete what nobody has released, because workers were killed."""
    executor.execute(text("DELETE FROM abandoned_attempts WHERE until <= now()"))


def _error(budget: Budget, wanted: int, added: int) -> BudgetExceededError:
    subject = "Your budget" if budget.key_id is None else "The budget of this API key"
    name = "USER_MONTHLY_TOKENS" if budget.key_id is None else "monthly_tokens"
    message = (
        f"{subject} is {budget.monthly_tokens} tokens a month. {budget.used_tokens} are used and "
        f"{budget.reserved_tokens + added} are reserved by unfinished prompts; this request needs {wanted}. "
        f"It begins again on {budget.resets_at.astimezone(UTC):%Y-%m-%d} (UTC). ({name})"
    )
    return BudgetExceededError(message, limit=name, resets_at=budget.resets_at)
