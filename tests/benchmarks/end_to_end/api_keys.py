"""Whether prompts cost the API as little with an API key as with a token, in alternation on one running service."""

from dataclasses import replace
from typing import Any

from tests.benchmarks.end_to_end import ours
from tests.benchmarks.end_to_end.contender import Contender
from tests.benchmarks.end_to_end.contenders import Lineup, counts, ratios, spread
from tests.benchmarks.end_to_end.generator import Generator, users_of
from tests.benchmarks.end_to_end.scale import Scale
from tests.benchmarks.end_to_end.throughput import closed_loop, latencies
from tests.support.servers import Servers

WITH_TOKEN, WITH_KEY = "with a token", "with an API key"
_USERS = 100


def measure(servers: Servers, scale: Scale) -> dict[str, Any]:
    """Run closed loops of users with tokens, and of others with keys."""
    connections = max(scale.connections)

    def turn(_: str, contender: Contender, generator: Generator) -> dict[str, Any]:
        return closed_loop(contender, generator, connections, scale.warm_up, scale.seconds)

    with ours.prepared(servers) as settings:
        accounts = ours.sign_up(settings, 2 * _USERS)
        with_keys = ours.with_keys(settings, accounts[_USERS:])
        with (
            ours.serve_on(servers, settings, accounts[:_USERS]) as by_token,
            users_of(by_token) as token_users,
            users_of(by_key := replace(by_token, accounts=with_keys)) as key_users,
        ):
            lineup = Lineup({WITH_TOKEN: (by_token, token_users), WITH_KEY: (by_key, key_users)})
            measurements = lineup.alternate(scale.rounds, turn)
    with_token = measurements.values(WITH_TOKEN, _api_cpu_ms)
    return {
        name: {
            "api_cpu_ms": spread(measurements.values(name, _api_cpu_ms), 3),
            "times_token": ratios(measurements.values(name, _api_cpu_ms), with_token),
            "per_second": spread([turn["per_second"] for turn in turns], 1),
            "submit_ms": latencies(turns, "submit_ms"),
            **counts(turns),
        }
        for name, turns in measurements.by_contender.items()
    }


def _api_cpu_ms(turn: dict[str, Any]) -> float | None:
    return turn["cpu_ms"].get("api")
