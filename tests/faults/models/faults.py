"""All scenarios, in the order of the table."""

from collections.abc import Callable
from typing import NamedTuple

from tests.faults.models import cancels, host_faults, provider_faults
from tests.faults.models.run import ModelRun
from tests.faults.models.scale import Scale


class Fault(NamedTuple):
    """A scenario: what is done to a fleet under load."""

    title: str
    act: Callable[[ModelRun, Scale], None]

    @property
    def name(self) -> str:
        return self.act.__name__


FAULTS = (
    Fault("provider killed, started again later", provider_faults.provider_restarts),
    Fault("answers broken in the middle", provider_faults.broken_answers),
    Fault("half of the running prompts cancelled", cancels.cancels),
    Fault("silent prompts cancelled", cancels.silent_cancels),
    Fault("kill -9 of worker hosts", host_faults.host_kills),
    Fault("rolling restarts of worker hosts", host_faults.host_restarts),
    Fault("a host with threads, one with processes", host_faults.mixed_hosts),
)
