"""Worker hosts are killed while an admin's operation retries failed prompts by a filter."""

import random
from collections import Counter

from sqlalchemy import text

from shared.db.engine import Sessions, make_engine, make_sessions
from tests.faults.cluster import Cluster
from tests.faults.load import LoadUser
from tests.faults.outcome import Outcome
from tests.faults.process_kills import kill_any
from tests.faults.run import Run, under_load
from tests.faults.scale import Scale
from tests.support.failed_prompts import add_failed

_MAKE_ADMIN = text("UPDATE users SET is_admin = true, admin_changed_at = now() WHERE id = :id")
_ENDINGS = text("""
    SELECT prompt_id, change FROM feed WHERE user_id = :user_id AND prompt_id = ANY(:ids) ORDER BY prompt_id, seq
""")
_AUDITED = text("""
    SELECT coalesce(sum((details ->> 'prompts')::bigint), 0) FROM audit
    WHERE action = 'prompts.retried' AND user_id = :user_id AND actor_id = :actor_id
""")


def operation_kills(cluster: Cluster, scale: Scale) -> Outcome:
    """Kill a worker host, and another process, each time the operation has advanced.

    Each prompt is retried once and answered once, and the audit trail has each.
    """
    rng = random.Random()
    sessions = make_sessions(make_engine(cluster.settings, application_name="faults"))
    with under_load(cluster, "kill -9 while a filter is retried", users=2, browses=False) as run:
        run.may_exit = True
        admin, owner = (LoadUser(cluster.urls, [], window=1, pause=0) for _ in range(2))
        try:
            ids = add_failed(sessions, owner.id, scale.retried)
            _become_admin(run, admin, sessions)
            _begin(admin, owner, len(ids))
            for _ in range(scale.operation_kills):
                done = _changed(admin)
                run.expect(lambda done=done: _is_over(admin) or _changed(admin) > done, 120, "the next group")
                host = rng.choice(cluster.workers)
                host.kill()
                host.start()
                kill_any(cluster, rng)
                run.note_fault()
            run.expect(lambda: _is_over(admin), 300, "the end of the operation")
            run.expect(lambda: _answered(sessions, owner, ids) == len(ids), 900, "the answers")
            _check(run, sessions, admin, owner, ids)
        finally:
            admin.leave()
            owner.leave()
            sessions.kw["bind"].dispose()
    run.outcome.notes = f"{scale.retried} prompts: each retried once, answered once and audited"
    return run.outcome


def _become_admin(run: Run, admin: LoadUser, sessions: Sessions) -> None:
    with sessions.begin() as session:
        session.execute(_MAKE_ADMIN, {"id": admin.id})

    def is_admin() -> bool:
        response = admin.call("queue", "GET", "/admin/queue/")
        return response is not None and response.status_code == 200

    run.expect(is_admin, 30, "the rights of an admin")


def _begin(admin: LoadUser, owner: LoadUser, count: int) -> None:
    body = {"action": "retry", "filter": {"user": owner.id}, "expected_count": count}
    admin.persist("begin", "POST", "/admin/operations/", json=body)


def _operations(admin: LoadUser) -> list[dict]:
    """One, or more if its response was lost and the request repeated."""
    return admin.persist("operations", "GET", "/admin/operations/").json()


def _changed(admin: LoadUser) -> int:
    return sum(each["changed"] for each in _operations(admin))


def _is_over(admin: LoadUser) -> bool:
    return all(each["status"] == "completed" for each in _operations(admin))


def _answered(sessions: Sessions, owner: LoadUser, ids: list[int]) -> int:
    completed = text("SELECT count(*) FROM prompts WHERE id = ANY(:ids) AND status = 'completed'")
    with sessions() as session:
        return session.scalar(completed, {"ids": ids}) or 0


def _check(run: Run, sessions: Sessions, admin: LoadUser, owner: LoadUser, ids: list[int]) -> None:
    run.outcome.require(_changed(admin) == len(ids), f"{_changed(admin)} were retried of {len(ids)}")
    with sessions() as session:
        endings = session.execute(_ENDINGS, {"user_id": owner.id, "ids": ids}).all()
        audited = session.scalar(_AUDITED, {"user_id": owner.id, "actor_id": admin.id})
    run.outcome.require(audited == len(ids), f"the audit trail has {audited} of {len(ids)}")
    found = Counter((prompt_id, change) for prompt_id, change in endings)
    expected = {(prompt_id, change): 1 for prompt_id in ids for change in ("failed", "completed")}
    run.outcome.require(found == expected, f"{len(found)} endings, {len(expected)} were expected")
