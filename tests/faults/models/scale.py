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
    mixed_kills: int
    #: Stops of a worker host with one SIGTERM. One with several follows.
    rolls: int
    cancels: int
    outage_seconds: float
    silent: int
    broken: int

    @property
    def at_a_time(self) -> int:
        return self.users * self.window


SHORT = Scale(
    users=4,
    window=5,
    chunks=15,
    seconds=1.5,
    kills=1,
    mixed_kills=0,
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
    kills=4,
    mixed_kills=2,
    rolls=4,
    cancels=3,
    outage_seconds=60,
    silent=50,
    broken=100,
)
