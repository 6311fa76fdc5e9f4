"""Whether a submission costs the API as little with an API key as with a token.

One user's submissions with the one and the other, in random order, through the application in this process: the CPU
time of the thread that serves them. Other load on the machine hardly changes the ratio.
"""

import random
import time
from typing import Any

import numpy as np
from flask.testing import FlaskClient

from api.app import create_app
from api.services import make_services
from tests.benchmarks.end_to_end import ours
from tests.benchmarks.end_to_end.contenders import ratios, spread
from tests.benchmarks.end_to_end.scale import Scale
from tests.support.servers import Servers, wait_until

WITH_TOKEN, WITH_KEY = "with a token", "with an API key"
_WARM_UP = 50
#: No worker answers the prompts.
_UNLIMITED = {"backlog_limit": 1_000_000, "user_backlog_limit": 1_000_000}


def measure(servers: Servers, scale: Scale) -> dict[str, Any]:
    """Measure the CPU time of a submission with each, in rounds of pairs."""
    with ours.prepared(servers) as settings:
        accounts = ours.sign_up(settings, 1)
        (with_token,), (with_key,) = accounts, ours.with_keys(settings, accounts)
        services = make_services(settings.model_copy(update=_UNLIMITED))
        services.relay.start()
        wait_until(lambda: services.token_cache.is_checked, what="the first check of ended logins")
        client = create_app(settings, services).test_client()
        tokens = {WITH_TOKEN: with_token.token, WITH_KEY: with_key.token}
        _round(client, tokens, _WARM_UP)
        rounds = [_round(client, tokens, scale.submissions) for _ in range(scale.rounds)]
        services.relay.shut_down()
        services.sessions.kw["bind"].dispose()
    cpu_us = {name: [found[name] for found in rounds] for name in tokens}
    return {
        name: {"submissions": len(rounds) * scale.submissions, "cpu_us": spread(values, 1)}
        | {"times_token": ratios(values, cpu_us[WITH_TOKEN])}
        for name, values in cpu_us.items()
    }


def _round(client: FlaskClient, tokens: dict[str, str], pairs: int) -> dict[str, float]:
    """Return the median CPU time of a submission with each token, in µs."""
    taken: dict[str, list[float]] = {name: [] for name in tokens}
    for _ in range(pairs):
        for name in random.sample(sorted(tokens), len(tokens)):
            taken[name].append(_submit(client, tokens[name]))
    return {name: 1e6 * float(np.median(each)) for name, each in taken.items()}


def _submit(client: FlaskClient, token: str) -> float:
    headers = {"Authorization": f"Bearer {token}"}
    started = time.thread_time()
    response = client.post("/prompts/", json={"prompt_text": "What is a tide?"}, headers=headers)
    taken = time.thread_time() - started
    if response.status_code != 202:
        raise RuntimeError(f"A submission was answered with {response.status_code}: {response.text}")
    return taken
