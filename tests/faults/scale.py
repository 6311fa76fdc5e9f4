"""The number of faults per scenario: `SHORT` is for `make faults-short`, `LONG` is for `make faults`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    prompts: int
    kills: int
    #: The tokens that each of some users may use.
    budget: int
    broker_restarts: int
    broker_stalls: int
    broker_stall_seconds: float
    postgres_restarts: int
    postgres_stalls: int
    postgres_stall_seconds: float
    #: How often, and for how long, a server refuses writes.
    refusals: int
    refusal_seconds: float
    rolls: int
    drops: int
    poisons: int
    poison_attempts: int
    forgeries: int
    damages: int
    outages: int
    outage_seconds: float
    webhook_kills: int
    batch_lines: int
    batch_kills: int
    retried: int
    operation_kills: int
    #: Whether to wait until the leases of killed hosts lapse. Otherwise they lapse at once, as if the time had passed.
    waits_for_webhook_leases: bool


SHORT = Scale(
    prompts=300,
    kills=8,
    budget=1_000,
    broker_restarts=3,
    broker_stalls=3,
    broker_stall_seconds=2,
    postgres_restarts=1,
    postgres_stalls=1,
    postgres_stall_seconds=4,
    refusals=1,
    refusal_seconds=2,
    rolls=1,
    drops=10,
    poisons=1,
    poison_attempts=2,
    forgeries=50,
    damages=3,
    outages=1,
    outage_seconds=4,
    webhook_kills=2,
    batch_lines=300,
    batch_kills=4,
    retried=1_200,
    operation_kills=2,
    waits_for_webhook_leases=False,
)
LONG = Scale(
    prompts=20_000,
    kills=200,
    budget=20_000,
    broker_restarts=20,
    broker_stalls=20,
    broker_stall_seconds=60,
    postgres_restarts=20,
    postgres_stalls=10,
    postgres_stall_seconds=20,
    refusals=10,
    refusal_seconds=10,
    rolls=10,
    drops=100,
    poisons=5,
    poison_attempts=5,
    forgeries=2_000,
    damages=30,
    outages=3,
    outage_seconds=60,
    webhook_kills=20,
    batch_lines=20_000,
    batch_kills=40,
    retried=10_000,
    operation_kills=10,
    waits_for_webhook_leases=True,
)
