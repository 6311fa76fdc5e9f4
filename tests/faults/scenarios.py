"""All of them, in the order of the table."""

from collections.abc import Callable

from tests.faults import hosts, indexes, prompts, providers, sockets, stores
from tests.faults.cluster import Cluster
from tests.faults.outcome import Outcome
from tests.faults.scale import Scale

SCENARIOS: tuple[Callable[[Cluster, Scale], Outcome], ...] = (
    hosts.kills,
    hosts.rolling_restarts,
    stores.broker_restarts,
    stores.broker_stalls,
    stores.postgres_restarts,
    stores.postgres_stalls,
    prompts.poison,
    prompts.forged_messages,
    providers.absences,
    sockets.cut_connections,
    indexes.damaged_segments,
)
