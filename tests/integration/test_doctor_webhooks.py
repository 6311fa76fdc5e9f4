"""The doctor says whether webhooks are delivered, where they may go, and whether a budget has room for a prompt."""

import pytest

from infra.doctor import Finding, Severity, webhooks
from shared.db.engine import Sessions
from shared.settings import Settings
from tests.support.client import ApiUser
from tests.support.servers import make_settings
from tests.support.webhook_calls import Log, change, create, finish
from worker.pipeline import Pipeline

LATE = "UPDATE webhook_deliveries SET next_attempt_at = now() - interval '6 min'"


@pytest.mark.parametrize(
    ("env", "allow_private", "warnings"), [("prod", True, 1), ("prod", None, 0), ("dev", True, 0), ("dev", None, 0)]
)
def test_private_webhooks_are_a_warning_in_production_and_not_refused(
    settings: Settings, env: str, allow_private: bool | None, warnings: int
) -> None:
    changed = settings.model_copy(update={"app_env": env, "webhook_allow_private": allow_private})
    found = list(webhooks.webhooks(changed))
    assert [each.severity for each in found] == [Severity.BEWARE] * warnings


class TestDeliveries:
    @pytest.fixture
    def webhook(self, alice: ApiUser, worker: Pipeline) -> dict:
        """A webhook with a pending delivery."""
        made = create(alice)
        finish(alice, worker)
        return made

    @pytest.mark.usefixtures("webhook")
    def test_pending_deliveries_are_counted(self, settings: Settings) -> None:
        (found,) = webhooks.webhooks(settings)
        assert found.text == "pending deliveries: 1, webhooks with any: 1"

    @pytest.mark.usefixtures("webhook")
    def test_deliveries_that_no_worker_sends_are_wrong(self, settings: Settings, sessions: Sessions) -> None:
        Log(sessions).execute(LATE)
        (found,) = webhooks.webhooks(settings)
        assert isinstance(found, Finding)
        assert found.severity == Severity.WRONG
        assert found.problem == "Deliveries of webhooks that no worker has sent for five minutes: 1."

    @pytest.mark.parametrize("until", ["paused_until", "leased_until"])
    @pytest.mark.usefixtures("webhook")
    def test_a_paused_endpoint_and_one_that_is_delivered_to_are_not(
        self, settings: Settings, sessions: Sessions, until: str
    ) -> None:
        Log(sessions).execute(LATE)
        Log(sessions).execute(f"UPDATE webhooks SET {until} = now() + interval '10 s'")  # noqa: S608
        assert [type(found) is Finding for found in webhooks.webhooks(settings)] == [False]

    def test_a_disabled_endpoint_is_not(
        self, settings: Settings, sessions: Sessions, alice: ApiUser, webhook: dict
    ) -> None:
        Log(sessions).execute(LATE)
        change(alice, webhook, disabled=True)
        assert list(webhooks.webhooks(settings)) == []


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ""),
        ({"user_monthly_tokens": 1_001}, ""),
        ({"user_monthly_tokens": 1_000}, "RESERVED_OUTPUT_TOKENS (1000)"),
        ({"user_monthly_tokens": 1_000, "openai_max_tokens": 400}, ""),
        ({"user_monthly_tokens": 300, "openai_max_tokens": 400}, "OPENAI_MAX_TOKENS (400)"),
        ({"user_monthly_tokens": 1_000, "generator": "simulated"}, ""),
    ],
)
def test_a_budget_without_room_for_a_prompt_is_named(changes: dict[str, object], names: str) -> None:
    found = list(webhooks.budgets(make_settings(**{"generator": "openai"} | changes)))
    assert [names in each.problem for each in found] == [True] * bool(names)
