"""Hypothesis settings: the same cases in each run, and no shrinking, which takes longer than reading one case."""

from hypothesis import HealthCheck, Phase, settings

QUIET = settings(
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
