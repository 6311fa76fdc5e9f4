"""Whether the duration of a rejected login reveals that a user exists: `make benchmark NAME=login`.

Each pair is one login of an existing user and one of an unknown user, in random order, both with a wrong password.
Every login comes from another address, because failed logins are limited.
"""

import random
import statistics
import time
from uuid import uuid4

import httpx
from sqlalchemy import insert

from shared.accounts import users
from shared.db.engine import make_engine
from shared.db.models import User
from tests.support import processes
from tests.support.servers import Servers

PAIRS = 400
WARM_UP = 20


def main() -> None:
    servers = Servers("benchmark")
    servers.start()
    try:
        with servers.database() as name:
            settings = servers.settings(name, trusted_proxies=1, log_level="ERROR")
            known = [f"user-{i}" for i in range(PAIRS + WARM_UP)]
            engine = make_engine(settings, application_name="benchmark")
            password_hash = users.hash_password("the right password")
            with engine.begin() as connection:
                rows = [{"username": username, "password_hash": password_hash} for username in known]
                connection.execute(insert(User), rows)
            engine.dispose()
            with processes.api(settings) as url, httpx.Client(base_url=url) as client:
                report([pair(client, username) for username in known][WARM_UP:])
    finally:
        servers.stop()


def pair(client: httpx.Client, username: str) -> tuple[float, float]:
    """Return the seconds that a rejected login took for this user, and for an unknown user."""
    names = {"known": username, "unknown": f"user-{uuid4().hex[:6]}"}
    taken = {}
    for kind in random.sample(sorted(names), 2):
        address = ".".join(str(random.randint(1, 250)) for _ in range(4))
        started = time.perf_counter()
        response = client.post(
            "/login/",
            json={"username": names[kind], "password": "a wrong password"},
            headers={"X-Forwarded-For": address},
        )
        taken[kind] = time.perf_counter() - started
        assert response.status_code == 401, response.text
    return taken["known"], taken["unknown"]


def report(pairs: list[tuple[float, float]]) -> None:
    known, unknown = (statistics.median(taken) for taken in zip(*pairs, strict=True))
    print(f"rejected logins, {len(pairs)} interleaved pairs, medians")
    print(f"  existing user    {known * 1000:.2f} ms")
    print(f"  unknown user     {unknown * 1000:.2f} ms")
    print(f"  known / unknown  {known / unknown:.3f}")


if __name__ == "__main__":
    main()
