"""The query by which KEDA counts a worker's prompts (infra/helm/promptwire/templates/autoscaling.yaml)."""

import re

import pytest
from sqlalchemy import text

from shared.db.engine import Sessions
from tests.support.servers import ROOT
from tests.support.user_queue import UserQueue

TEMPLATE = ROOT / "infra/helm/promptwire/templates/autoscaling.yaml"


@pytest.fixture
def query() -> str:
    """The folded text of the template, which has no placeholders in it."""
    return " ".join(re.findall(r"query: >-\n((?: {10}.*\n)+)", TEMPLATE.read_text())[0].split())


def test_prompts_that_wait_or_run_are_counted(queue: UserQueue, sessions: Sessions, query: str) -> None:
    def count() -> int:
        with sessions() as session:
            return session.execute(text(query)).scalar_one()

    assert count() == 0
    queue.submit("a", "b", "c")
    assert count() == 3
    queue.claim(2)
    assert count() == 3, "a worker that runs prompts is needed, too"
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET not_before = now() + interval '1 hour' WHERE status = 'queued'"))
    assert count() == 2, "a prompt that waits for its next attempt needs no worker"
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET not_before = NULL"))
        session.execute(text("UPDATE routes SET unavailable_since = now()"))
    assert count() == 2, "more workers do not help while the provider is unavailable"


def test_finished_prompts_are_not_read(queue: UserQueue, sessions: Sessions, query: str) -> None:
    with sessions() as session:
        session.execute(
            text(
                "INSERT INTO prompts (user_id, prompt_text, websocket, request_id, status, completed_at, attempt_limit)"
                " SELECT :user_id, 'Hi', false, 'a', 'completed', now(), 5 FROM generate_series(1, 20000)"
            ),
            {"user_id": queue.user("a")},
        )
        session.execute(text("ANALYZE prompts"))
        plan = session.execute(text(f"EXPLAIN (FORMAT JSON) {query}")).scalar_one()
    indexes = re.findall(r"'Index Name': '(prompts_\w+)'", str(plan))
    waiting, running = {"prompts_claimable", "prompts_turns_of_user"}, {"prompts_running", "prompts_leased"}
    assert len(indexes) == 2
    assert waiting & set(indexes)
    assert running & set(indexes)


def test_the_documented_role_may_run_the_query(sessions: Sessions, query: str) -> None:
    grants = re.findall(r"^GRANT .*;$", (ROOT / "docs/kubernetes.md").read_text(), re.MULTILINE)
    assert len(grants) == 2
    with sessions() as session:  # rolled back
        for statement in ("CREATE ROLE keda", *grants, "SET LOCAL ROLE keda"):
            session.execute(text(statement))
        assert session.execute(text(query)).scalar_one() == 0
