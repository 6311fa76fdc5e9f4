"""Checks of webhooks and budgets: what callers of this installation notice late."""

from collections.abc import Iterator

from sqlalchemy import text

from infra.doctor import Finding, NotCheckedError, Observation, Severity, each_model
from infra.doctor.stores import connect
from shared.db import migrations
from shared.settings import Settings

# Those that no worker host has leased, although they may be sent. One that is delivered to has a lease.
_STATE = text("""
    SELECT count(DISTINCT webhook_id) AS webhooks, count(*) AS deliveries,
        count(*) FILTER (WHERE greatest(next_attempt_at, paused_until, leased_until) < now() - interval '5 min') AS late
    FROM webhook_deliveries JOIN webhooks ON webhooks.id = webhook_id
    WHERE status = 'pending' AND disabled_at IS NULL
""")


def webhooks(settings: Settings) -> Iterator[Finding | Observation]:
    """Webhooks reach public addresses only, in production, and workers deliver."""
    if settings.app_env == "prod" and settings.webhooks_may_be_private:
        yield Finding(
            "WEBHOOK_ALLOW_PRIVATE=true: users can have requests sent to whatever your workers reach, such as the "
            "metadata service of a cloud.",
            "Unset it, unless all users may reach your private network.",
            Severity.BEWARE,
        )
    with connect(settings) as connection:
        if not migrations.is_current(connection):
            raise NotCheckedError("the database schema does not match")
        state = connection.execute(_STATE).one()
    if state.late:
        yield Finding(
            f"Deliveries of webhooks that no worker has sent for five minutes: {state.late}.",
            "Check that workers run, and look for `webhook` in their logs.",
        )
    elif state.deliveries:
        yield Observation(f"pending deliveries: {state.deliveries}, webhooks with any: {state.webhooks}")


def budgets(settings: Settings) -> Iterator[Finding | Observation]:
    """A prompt of each model fits into the budget of a user."""
    return each_model(settings, _budgets)


def _budgets(settings: Settings) -> Iterator[Finding]:
    if settings.user_monthly_tokens is None or settings.generator == "simulated":
        return
    name, reserved = "RESERVED_OUTPUT_TOKENS", settings.reserved_output_tokens
    if settings.generator == "openai" and settings.openai_max_tokens is not None:
        name, reserved = "OPENAI_MAX_TOKENS", settings.openai_max_tokens
    if reserved >= settings.user_monthly_tokens:
        yield Finding(
            f"Each prompt reserves {name} ({reserved}) tokens for its answer, and USER_MONTHLY_TOKENS is "
            f"{settings.user_monthly_tokens}: no prompt fits into the budget.",
            f"Lower {name}, or raise USER_MONTHLY_TOKENS.",
        )
