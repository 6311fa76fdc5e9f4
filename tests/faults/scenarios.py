"""All scenarios, in the order of the table."""

from collections.abc import Callable

from tests.faults import (
    batch_kills,
    budget_kills,
    damaged_segments,
    operation_kills,
    poison_prompts,
    process_kills,
    provider_outages,
    server_outages,
    socket_misuse,
    webhook_kills,
)
from tests.faults.cluster import Cluster
from tests.faults.outcome import Outcome
from tests.faults.scale import Scale

SCENARIOS: tuple[Callable[[Cluster, Scale], Outcome], ...] = (
    process_kills.kills,
    process_kills.rolling_restarts,
    budget_kills.budgets,
    server_outages.broker_restarts,
    server_outages.broker_stalls,
    server_outages.postgres_restarts,
    server_outages.postgres_stalls,
    server_outages.postgres_read_only,
    server_outages.redis_refusals,
    poison_prompts.poison,
    poison_prompts.forged_messages,
    provider_outages.provider_outages,
    socket_misuse.cut_connections,
    damaged_segments.damaged_segments,
    webhook_kills.webhook_kills,
    batch_kills.batch_kills,
    operation_kills.operation_kills,
)
