"""How long the console's panels take among many prompts, and an operation on 10,000 of them:
`make benchmark NAME=console` (or `ARGS=100000` for 100,000 prompts).
"""

import logging
import statistics
import sys
import time
from collections.abc import Callable

import structlog
from flask import Flask
from sqlalchemy import text

from api.app import create_app
from api.services import make_services
from shared.accounts import users
from shared.db.engine import Sessions
from shared.messaging.announcements import Announcer
from shared.messaging.queue import Queue, make_celery
from shared.messaging.redis import make_redis
from shared.settings import Settings
from tests.support.client import PASSWORD, ApiUser
from tests.support.servers import Servers
from worker.operations import OperationDriver

PROMPTS = 1_000_000
USERS = 1_000
#: Of all prompts. One in FAILED has failed, of which OPERATION are retried.
QUEUED, RUNNING, FAILED = 20_000, 500, 50
OPERATION = 10_000
_CALLS = 30
_STEP = 50_000

_USERS = "INSERT INTO users (username, password_hash) SELECT 'user-' || n, '' FROM generate_series(1, :users) AS n"
_FILL = text(f"""
    WITH stored AS (
        INSERT INTO prompts (user_id, prompt_text, response_text, status, websocket, request_id, attempt, attempt_limit,
            error, route, turn, queued_at, due_at, completed_at, seq)
        SELECT 1 + n % :users, repeat('x', 200), CASE WHEN kind = 'completed' THEN repeat('y', 800) END, kind, false,
            'r',
            CASE WHEN kind = 'queued' THEN 0 ELSE 1 END, 5,
            CASE WHEN kind = 'failed' THEN 'The provider failed: code ' || n % 7 END,
            CASE n % 5 WHEN 0 THEN 'default' ELSE 'model-' || n % 5 END, CASE WHEN kind = 'queued' THEN n END, at,
            CASE WHEN kind IN ('queued', 'processing') THEN now() + interval '1 hour' END,
            CASE WHEN kind IN ('completed', 'failed') THEN at END,
            CASE WHEN kind IN ('completed', 'failed') THEN n END
        FROM (
            SELECT n, now() - (:total - n) * interval '0.5 s' AS at, CASE
                WHEN n > :total - {RUNNING} THEN 'processing'
                WHEN n > :total - {RUNNING} - :queued THEN 'queued'
                WHEN n % {FAILED} = 0 THEN 'failed'
                ELSE 'completed'
            END AS kind
            FROM generate_series(CAST(:first AS bigint), CAST(:first AS bigint) + :step - 1) AS n
        ) AS kinds
        RETURNING id, user_id, seq, status, error, completed_at
    )
    INSERT INTO feed (user_id, seq, prompt_id, change, error, at)
    SELECT user_id, seq, id, status, error, completed_at FROM stored WHERE seq IS NOT NULL
""")  # noqa: S608
_USAGE = """
    INSERT INTO usage (user_id, day, key_id, route, prompts, prompt_tokens)
    SELECT u, now()::date - d, 0, 'model-' || u % 5, 9, 99
    FROM generate_series(1, :users) AS u, generate_series(0, 60) AS d
"""
_AUDIT = """
    INSERT INTO audit (actor_id, action, user_id, address)
    SELECT 1, 'logins.ended', 1 + n % :users, '' FROM generate_series(1, 100000) AS n
"""
PANELS = (
    "queue/",
    "failures/",
    "workers/",
    "models/",
    "operations/",
    "users/",
    "keys/",
    "usage/?by=user",
    "usage/?by=model",
    "audit/",
)


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    total = int(sys.argv[1]) if len(sys.argv) > 1 else PROMPTS
    servers = Servers("benchmark", options=())
    servers.start()
    try:
        with servers.database() as name:
            settings = servers.settings(name)
            services = make_services(settings)
            fill(services.sessions, total)
            app = create_app(settings, services)
            admin = make_admin(app, services.sessions)
            print(f"{total:,} prompts, of which {QUEUED:,} are queued and {RUNNING:,} run; {USERS:,} users")
            for panel in PANELS:
                report(panel, lambda panel=panel: _get(admin, panel))
            operate(settings, services.sessions, admin, total)
    finally:
        servers.stop()


def fill(sessions: Sessions, total: int) -> None:
    started = time.monotonic()
    with sessions.begin() as session:
        session.execute(text("SET LOCAL statement_timeout = 0"))
        for statement in (_USERS, _USAGE, _AUDIT):
            session.execute(text(statement), {"users": USERS})
    for first in range(1, total + 1, _STEP):
        with sessions.begin() as session:
            session.execute(text("SET LOCAL statement_timeout = 0"))
            session.execute(_FILL, {"first": first, "step": _STEP, "total": total, "users": USERS, "queued": QUEUED})
    with sessions.kw["bind"].connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))
    print(f"filled in {time.monotonic() - started:.0f} s")


def make_admin(app: Flask, sessions: Sessions) -> ApiUser:
    with sessions.begin() as session:
        users.create(session, "root", users.hash_password(PASSWORD), is_admin=True)
    return ApiUser(app, "root", is_new=False)


def _get(admin: ApiUser, panel: str) -> None:
    response = admin.get(f"/admin/{panel}")
    if response.status_code != 200:
        raise RuntimeError(response.text)


def report(name: str, call: Callable[[], object]) -> None:
    times = []
    for _ in range(_CALLS):
        started = time.perf_counter()
        call()
        times.append(1_000 * (time.perf_counter() - started))
    times.sort()
    print(f"{name:<24} p50 {statistics.median(times):7.1f} ms   p95 {times[int(0.95 * _CALLS)]:7.1f} ms")


def operate(settings: Settings, sessions: Sessions, admin: ApiUser, total: int) -> None:
    """Count, confirm and carry out a retry of OPERATION failed prompts."""
    count = min(OPERATION, total // FAILED // 2)
    with sessions() as session:
        newest = "SELECT completed_at FROM prompts WHERE status = 'failed' ORDER BY completed_at DESC OFFSET :n LIMIT 1"
        since = session.scalar(text(newest), {"n": count - 1})
    body = {"action": "retry", "filter": {"since": since.isoformat()}}
    report("count of an operation", lambda: admin.post("/admin/operations/", json=body | {"dry_run": True}))
    started = time.perf_counter()
    operation = admin.post("/admin/operations/", json=body | {"expected_count": 10 * count}).json
    print(f"beginning an operation on {operation['total']:,}: {time.perf_counter() - started:.2f} s")
    redis = make_redis(settings)
    driver = OperationDriver(settings, sessions, Queue(make_celery(settings), redis), Announcer(redis))
    started = time.perf_counter()
    while driver.step():
        pass
    shown = admin.get(f"/admin/operations/{operation['id']}/").json
    print(f"retrying {shown['changed']:,}: {time.perf_counter() - started:.2f} s ({shown['status']})")


if __name__ == "__main__":
    main()
