"""The lifecycle under any interleaving of its steps: a model predicts each step, and the tables must match it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import text, update

from shared.accounts import users
from shared.db.engine import Sessions, make_engine, make_sessions
from shared.db.models import FeedEntry, Prompt, VectorLogEntry
from shared.errors import PromptwireError
from shared.prompts import claims, feed, overdue, scheduling, submission
from shared.prompts.claims import Claim
from shared.providers import Vectors
from shared.search import missing_vectors, vector_log
from shared.search.faiss.replica import Replica
from shared.search.missing_vectors import BackfilledVector
from shared.search.vector_log import Changes, State
from tests.support import lifecycle, usage
from tests.support.generated import QUIET
from tests.support.servers import Servers

GRACE, LEASE, PAUSE = timedelta(seconds=30), timedelta(seconds=60), timedelta(seconds=20)
ATTEMPTS = 2
VECTOR = np.eye(1, 4, dtype=np.float32).tobytes()


@pytest.fixture(scope="module")
def sessions(servers: Servers) -> Iterator[Sessions]:
    with servers.database() as name:
        engine = make_engine(servers.settings(name), application_name="test")
        yield make_sessions(engine)
        engine.dispose()


@dataclass
class Expected:
    """The model's state of a prompt. Times are seconds on the model's clock."""

    due: float | None
    status: str = "queued"
    attempt: int = 0
    limit: int = ATTEMPTS
    not_before: float | None = None  #: while it waits for a turn
    response: str | None = None
    lacks_vector: bool = False  #: completed while its embedder failed
    used: int = 0  #: tokens, by all attempts
    settled: int = 0  #: the newest attempt whose usage is recorded
    claims: list[Claim] = field(default_factory=list)

    @property
    def is_unfinished(self) -> bool:
        return self.status in ("queued", "processing")

    def holds(self, claim: Claim) -> bool:
        return self.status == "processing" and self.attempt == claim.attempt

    def settle(self, claim: Claim, tokens: int) -> int:
        """Record what an attempt used. Return what that adds to the ledger."""
        if not tokens or self.settled >= claim.attempt:
            return 0
        self.used += tokens
        self.settled = claim.attempt
        return tokens

    def end(self, status: str) -> None:
        self.status, self.due, self.not_before = status, None, None


class SmallEmbedder:
    """An embedder of 4 dimensions."""

    name, dimension, is_remote = "test", 4, False

    def embed(self, texts: Sequence[str]) -> Vectors:
        raise NotImplementedError


class Lifecycle(RuleBasedStateMachine):
    sessions: Sessions

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.expected: dict[int, Expected] = {}
        self.changes: list[tuple[int, str]] = []
        self.ledger = 0
        self.claims_of_deleted: list[Claim] = []
        with self.sessions.begin() as session:
            self.user_id = users.create(session, uuid4().hex, "hash").id

    def any_prompt(self, data: st.DataObject) -> int:
        return sorted(self.expected)[data.draw(st.integers(0, len(self.expected) - 1))]

    def any_claim(self, data: st.DataObject) -> Claim:
        """Draw any claim ever made, including lapsed and lost ones."""
        given = [claim for each in self.expected.values() for claim in each.claims]
        return given[data.draw(st.integers(0, len(given) - 1))]

    def teardown(self) -> None:
        with self.sessions.begin() as session:
            session.execute(text("DELETE FROM users"))

    has_prompts = precondition(lambda self: self.expected)
    has_claims = precondition(lambda self: any(each.claims for each in self.expected.values()))

    @rule(attempts=st.integers(1, ATTEMPTS))
    def submit(self, attempts: int) -> None:
        with self.sessions.begin() as session:
            prompt = lifecycle.submit(session, self.user_id, grace=GRACE, attempt_limit=attempts)
        self.expected[prompt.id] = Expected(due=self.now + GRACE.total_seconds(), limit=attempts)

    @has_prompts
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        prompt_id = self.any_prompt(data)
        each = self.expected[prompt_id]
        is_claimable = each.status == "queued" and each.not_before is None
        with self.sessions.begin() as session:
            lifecycle.put_first(session, prompt_id)
            claimed = lifecycle.claim_any(session, lease=LEASE)
            if not is_claimable:
                assert prompt_id not in [claim.id for claim in claimed]
                session.rollback()
                return
        each.status, each.attempt, each.due = "processing", each.attempt + 1, self.now + LEASE.total_seconds()
        (claim,) = claimed
        assert (claim.id, claim.attempt, claim.final) == (prompt_id, each.attempt, each.attempt >= each.limit)
        each.claims.append(claim)

    @has_claims
    @rule(data=st.data(), tokens=st.integers(1, 9))
    def use(self, data: st.DataObject, tokens: int) -> None:
        claim = self.any_claim(data)
        if self.expected[claim.id].settled < claim.attempt:
            claim.meter.report(tokens, 0)

    @has_claims
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """The worker notices that it has lost the claim."""
        claim = self.any_claim(data)
        if self.expected[claim.id].holds(claim):
            return
        tokens = used(claim)
        with self.sessions.begin() as session:
            claims.settle(session, [claim])
        self.ledger += self.expected[claim.id].settle(claim, tokens)

    @precondition(lambda self: self.claims_of_deleted)
    @rule()
    def settle_deleted(self) -> None:
        claim = self.claims_of_deleted.pop()
        self.ledger += used(claim)
        with self.sessions.begin() as session:
            claims.settle(session, [claim])
            claims.settle(session, [claim])

    @has_claims
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        claim = self.any_claim(data)
        each = self.expected[claim.id]
        with self.sessions.begin() as session:
            kept = claims.renew(session, [(claim.id, claim.attempt)], LEASE)
        assert bool(kept) == each.holds(claim)
        if kept:
            each.due = self.now + LEASE.total_seconds()

    @has_claims
    @rule(data=st.data(), is_embedded=st.booleans())
    def complete(self, data: st.DataObject, is_embedded: bool) -> None:
        claim = self.any_claim(data)
        each = self.expected[claim.id]
        vector = VECTOR if is_embedded else None
        tokens = used(claim)
        with self.sessions.begin() as session:
            ending = lifecycle.complete(session, claim, f"by {claim.attempt}", vector=vector)
        assert (ending is not None) == each.holds(claim)
        if ending is not None:
            claim.meter.reset()
            self.ledger += tokens
            each.used, each.settled = each.used + tokens, claim.attempt
            each.response = f"by {claim.attempt}"
            each.end("completed")
            each.lacks_vector = not is_embedded
            self.changes.append((claim.id, "completed"))
            assert ending.seq == len(self.changes)

    @has_prompts
    @rule(data=st.data())
    def embed_late(self, data: st.DataObject) -> None:
        prompt_id = self.any_prompt(data)
        each = self.expected[prompt_id]
        late = BackfilledVector(prompt_id, "test", VECTOR, expected_embedder="test")
        with self.sessions.begin() as session:
            stored = missing_vectors.store(session, [late])
        assert [row.prompt_id for row in stored.rows.get(self.user_id, ())] == [prompt_id] * each.lacks_vector
        if each.lacks_vector:
            each.lacks_vector = False
            self.changes.append((0, "embedded"))

    @has_claims
    @rule(data=st.data(), retry=st.booleans())
    def fail(self, data: st.DataObject, retry: bool) -> None:
        claim = self.any_claim(data)
        each = self.expected[claim.id]
        tokens = used(claim)
        with self.sessions.begin() as session:
            changed = claims.reschedule(session, claim, PAUSE) if retry else bool(claims.fail(session, claim, "no"))
        assert changed == each.holds(claim)
        if changed and not retry:
            self.ledger += tokens
            each.used, each.settled = each.used + tokens, claim.attempt
        else:
            self.ledger += each.settle(claim, tokens)
        if changed and retry:
            each.status = "queued"
            each.due = each.not_before = self.now + PAUSE.total_seconds()
        elif changed:
            each.end("failed")
            self.changes.append((claim.id, "failed"))

    @has_claims
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        claim = self.any_claim(data)
        each = self.expected[claim.id]
        tokens = used(claim)
        with self.sessions.begin() as session:
            assert claims.release(session, [claim], grace=GRACE) == each.holds(claim)
        self.ledger += each.settle(claim, tokens)
        if each.holds(claim):
            each.status, each.due, each.limit = "queued", self.now + GRACE.total_seconds(), each.limit + 1

    @has_prompts
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        prompt_id = self.any_prompt(data)
        each = self.expected[prompt_id]
        if self._try(submission.cancel, prompt_id):
            assert each.is_unfinished
            each.end("cancelled")
            self.changes.append((prompt_id, "cancelled"))
        else:
            assert not each.is_unfinished

    @has_prompts
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        prompt_id = self.any_prompt(data)
        each = self.expected[prompt_id]
        if self._try(submission.retry, prompt_id, grace=GRACE, attempts=ATTEMPTS):
            assert each.status in ("failed", "cancelled")
            each.status, each.limit, each.not_before = "queued", each.attempt + ATTEMPTS, None
            each.due = self.now + GRACE.total_seconds()
        else:
            assert each.status not in ("failed", "cancelled")

    @has_prompts
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        prompt_id = self.any_prompt(data)
        assert self._try(submission.delete, prompt_id)
        assert not self._try(submission.delete, prompt_id)
        deleted = self.expected.pop(prompt_id)
        self.claims_of_deleted += [claim for claim in deleted.claims if claim.attempt > deleted.settled]
        self.changes.append((prompt_id, "deleted"))

    @rule()
    def reap(self) -> None:
        lapsed = {i for i, e in self.expected.items() if e.status == "processing" and e.due <= self.now}
        exhausted = {i for i in lapsed if self.expected[i].attempt >= self.expected[i].limit}
        with self.sessions() as session:
            assert set(overdue.exhausted(session, limit=100)) == exhausted
        for prompt_id in sorted(exhausted):
            with self.sessions.begin() as session:
                assert overdue.fail_exhausted(session, prompt_id) is not None
            self.expected[prompt_id].end("failed")
            self.changes.append((prompt_id, "failed"))
        with self.sessions.begin() as session:
            queued = overdue.queue_lapsed(session, grace=GRACE, limit=100)
            assert sum(queued.values()) == len(lapsed - exhausted)
        for prompt_id in lapsed - exhausted:
            each = self.expected[prompt_id]
            each.status, each.due = "queued", self.now + GRACE.total_seconds()
        waiting = [e for e in self.expected.values() if e.not_before is not None and e.not_before <= self.now]
        with self.sessions.begin() as session:
            users_waiting = scheduling.users_without_turn(session)
            granted = scheduling.grant_turns(session, users_waiting, grace=GRACE, running_limit=None)
            assert sum(granted.values()) == len(waiting)
        for each in waiting:
            each.not_before, each.due = None, self.now + GRACE.total_seconds()

    @rule(seconds=st.sampled_from([10, 25, 35, 65]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        passed = timedelta(seconds=seconds)
        with self.sessions.begin() as session:
            session.execute(update(Prompt).values(due_at=Prompt.due_at - passed, not_before=Prompt.not_before - passed))

    @invariant()
    def the_tables_match_the_model(self) -> None:
        with self.sessions() as session:
            rows = session.query(Prompt).filter(Prompt.user_id == self.user_id).all()
            assert {(r.id, r.status, r.attempt, r.attempt_limit, r.response_text) for r in rows} == {
                (i, e.status, e.attempt, e.limit, e.response) for i, e in self.expected.items()
            }
            assert all((row.due_at is None) == (row.status not in ("queued", "processing")) for row in rows)

    @invariant()
    def the_ledger_has_what_every_attempt_used_once(self) -> None:
        with self.sessions() as session:
            rows = session.query(Prompt).filter(Prompt.user_id == self.user_id).all()
            assert {(row.id, row.used_prompt_tokens) for row in rows} == {(i, e.used) for i, e in self.expected.items()}
            endings = sum(change in ("completed", "failed", "cancelled") for _, change in self.changes)
            assert usage.ledger(session, self.user_id) == (endings, self.ledger, 0)

    @invariant()
    def the_feed_has_every_change_once_without_gaps(self) -> None:
        with self.sessions() as session:
            entries = session.query(FeedEntry).filter(FeedEntry.user_id == self.user_id).order_by(FeedEntry.seq)
            assert [(entry.seq, entry.prompt_id, entry.change) for entry in entries] == [
                (seq, *change) for seq, change in enumerate(self.changes, 1)
            ]
            assert feed.position(session, self.user_id, None)[0] == len(self.changes)

    @invariant()
    def the_feed_replays_to_the_table(self) -> None:
        with self.sessions() as session:
            last: dict[int, str] = {}
            for ending in feed.read(session, self.user_id, 0).events:
                last[ending.prompt_id] = ending.change
        ended = {i: e.status for i, e in self.expected.items() if not e.is_unfinished}
        assert {i: change for i, change in last.items() if i in ended} == ended

    @invariant()
    def a_replica_that_applies_the_log_holds_the_completed_prompts_with_a_vector(self) -> None:
        completed = {i for i, each in self.expected.items() if each.status == "completed" and not each.lacks_vector}
        replica = Replica(SmallEmbedder(), State(0, 0, "test"), (), None)
        with self.sessions() as session:
            connection = session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            replica.apply(vector_log.fetch_after(connection, self.user_id, SmallEmbedder(), 0))
            stored = session.query(VectorLogEntry.prompt_id).filter(
                VectorLogEntry.user_id == self.user_id, VectorLogEntry.vector.is_not(None)
            )
            assert {row.prompt_id for row in stored} == completed
        query = np.eye(1, 4, dtype=np.float32)[0]
        found = replica.nearest(query, 100, Changes.from_rows([], 4))
        assert {match.prompt_id for match in found} == completed

    @invariant()
    def missing_vectors_are_known(self) -> None:
        lacking = {i for i, each in self.expected.items() if each.lacks_vector}
        with self.sessions() as session:
            found = missing_vectors.for_user(session, self.user_id, 100, 10**6)
            state = vector_log.fetch_state(session.connection(), self.user_id)
            assert {each.prompt_id for each in found} == lacking
            assert missing_vectors.count(session, self.user_id) == len(lacking)
            assert state.vectors_missing or not lacking

    def _try(self, step, prompt_id: int, **kwargs: object) -> bool:
        try:
            with self.sessions.begin() as session:
                step(session, self.user_id, prompt_id, **kwargs)
        except PromptwireError:
            return False
        return True


def used(claim: Claim) -> int:
    """The tokens that an attempt has used and not recorded."""
    return claim.meter.used.used_prompt_tokens or 0


def test_any_interleaving_of_steps_matches_the_model(sessions: Sessions) -> None:
    machine = type("Bound", (Lifecycle,), {"sessions": sessions})
    run_state_machine_as_test(
        machine,
        settings=settings(QUIET, max_examples=25, stateful_step_count=40),
    )


class FirstChoice:
    """Stands in for Hypothesis' data, and draws the first of any choice."""

    def draw(self, _: object) -> int:
        return 0


def test_the_model_includes_prompts_that_run_out_of_attempts(sessions: Sessions) -> None:
    machine = type("Bound", (Lifecycle,), {"sessions": sessions})()
    machine.submit(attempts=1)
    machine.claim(data=FirstChoice())
    machine.time_passes(seconds=65)
    machine.reap()
    assert [each.status for each in machine.expected.values()] == ["failed"]
    machine.the_tables_match_the_model()
    machine.the_feed_has_every_change_once_without_gaps()
    machine.teardown()
