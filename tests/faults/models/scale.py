"""The load and the number of faults: `SHORT` is for `make faults-short`, `LONG` is for `make faults ARGS=models`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    users: int
    #: Prompts of each user at a time.
    window: int
    #: Of each answer.
    chunks: int
    seconds: float
    kills: int
    rolls: int
    cancels: int
    outage_seconds: float
    silent: int
    broken: int

    @property
    def at_a_time(self) -> int:
        return self.users * self.window


SHORT = Scale(
    users=5,
    window=6,
    chunks=20,
    seconds=2,
    kills=2,
    rolls=1,
    cancels=1,
    outage_seconds=3,
    silent=10,
    broken=5,
)
LONG = Scale(
    users=10,
    window=20,
    chunks=40,
    seconds=4,
    kills=6,
    rolls=2,
    cancels=3,
    outage_seconds=60,
    silent=50,
    broken=100,
)
