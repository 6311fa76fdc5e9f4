"""Round trips of each request and each prompt: exact counts, which do not depend on the machine's speed."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from redis.connection import AbstractConnection
from sqlalchemy import Connection, Engine, event, func, update

from api.realtime import ended_logins
from shared.db.engine import Sessions
from shared.db.models import ApiKey
from shared.db.prepared import PreparedStatement
from tests.integration.test_submission import new_prompt, submit_together
from tests.support.client import ApiUser
from tests.support.servers import wait_until
from worker.pipeline import Pipeline


@dataclass
class Cost:
    statements: list[str] = field(default_factory=list)
    commits: int = 0  #: of transactions of several statements
    redis_trips: int = 0
    redis_bytes: int = 0  #: sent

    @property
    def counts(self) -> tuple[int, int, int]:
        return len(self.statements), self.commits, self.redis_trips


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch):
    """Count what a block sends to the given engines, and to Redis from this process."""
    send = AbstractConnection.send_packed_command
    measured: list[Cost] = []

    def counted(connection: AbstractConnection, command, *args, **kwargs):
        for cost in measured:
            cost.redis_trips += 1
            cost.redis_bytes += sum(map(len, command)) if isinstance(command, list | tuple) else len(command)
        return send(connection, command, *args, **kwargs)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", counted)
    run = PreparedStatement._run
    listeners: list[Callable[[PreparedStatement, Connection], None]] = []

    def listened_run(prepared: PreparedStatement, connection: Connection, parameters):  # the driver has no events
        for listener in listeners:
            listener(prepared, connection)
        return run(prepared, connection, parameters)

    monkeypatch.setattr(PreparedStatement, "_run", listened_run)

    @contextmanager
    def measure(*engines: Engine) -> Iterator[Cost]:
        cost = Cost()

        def note(_: object, __: object, statement: str, *___: object) -> None:
            # Statements are prepared now and then, and the check for ended logins may have taken the connection.
            is_own = threading.current_thread().name != ended_logins.THREAD_NAME
            if is_own and "PREPARE " not in statement:
                cost.statements.append(statement)

        def note_prepared(prepared: PreparedStatement, connection: Connection) -> None:
            if connection.engine in engines:
                note(connection, None, prepared.sql)

        def commit(_: object) -> None:
            cost.commits += 1

        for engine in engines:
            event.listen(engine, "before_cursor_execute", note)
        event.listen(engines[0], "commit", commit)
        measured.append(cost)
        listeners.append(note_prepared)
        yield cost
        listeners.remove(note_prepared)
        measured.remove(cost)
        event.remove(engines[0], "commit", commit)
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)

    return measure


@pytest.fixture
def api(make_app, costs):
    """An idle API process: its relay does not poll, and the user's token is cached."""
    app, services = make_app(feed_check_seconds=3_600)
    wait_until(lambda: services.relay._pubsub is not None and services.token_cache.is_checked)
    alice = ApiUser(app, "alice")
    alice.submit()
    return alice, services, lambda: costs(services.sessions.kw["bind"], services.autocommit_engine)


def test_a_submission_is_one_statement_and_two_round_trips(api) -> None:
    alice, _, measured = api
    with measured() as cost:
        alice.submit()
    assert cost.counts == (1, 0, 2), cost
    assert cost.redis_bytes < 1_400


@pytest.mark.parametrize("limits", [{}, {"rate_limit": "1000/second;10000/minute", "models": ["default"]}])
def test_a_submission_with_a_known_api_key_costs_as_much_as_with_a_token(api, limits: dict) -> None:
    alice, _, measured = api
    by_key = alice.with_key(**limits)
    by_key.submit()
    wait_until(lambda: alice.get("/auth/keys/").json[0]["last_used_at"], what="the write of the last use")
    with measured() as cost:
        by_key.submit()
    assert cost.counts == (1, 0, 2), cost
    assert cost.redis_bytes < (1_600 if limits else 1_400)


@pytest.mark.parametrize("state", ["wrong", "malformed", "revoked", "expired"])
def test_wrong_revoked_and_expired_keys_cost_one_statement_each(api, sessions: Sessions, state: str) -> None:
    alice, _, measured = api
    made = alice.create_key()
    if state in ("revoked", "expired"):
        column = "revoked_at" if state == "revoked" else "expires_at"
        with sessions.begin() as session:
            session.execute(update(ApiKey).values({column: func.now() - timedelta(hours=1)}))
    refused = alice.with_key({"wrong": "pw_" + "a" * 49, "malformed": "pw_?"}.get(state, made["key"]))
    for _ in range(2):
        with measured() as cost:
            assert refused.get("/prompts/").status_code == 401
        assert cost.counts == (1, 0, 0), cost


def test_a_group_of_submissions_costs_as_much_as_one_submission(api) -> None:
    alice, services, measured = api
    with measured() as cost:
        submit_together(services, [(new_prompt(alice), None)] * 20)
    assert cost.counts == (2, 0, 4), cost  # the submission before the group, and the group


def test_a_submission_with_an_idempotency_key_is_one_transaction(api) -> None:
    alice, _, measured = api
    with measured() as cost:
        alice.post("/prompts/", json={"prompt_text": "Hi"}, headers={"Idempotency-Key": "K"})
    assert cost.counts == (4, 1, 2), cost


@pytest.mark.parametrize("statements", [1, 2])
def test_a_poll_is_one_statement_and_another_for_the_position_of_a_queued_prompt(
    api, worker: Pipeline, statements: int
) -> None:
    alice, _, measured = api
    prompt_id = alice.submit()
    if statements == 1:
        worker.process(10)
    with measured() as cost:
        etag = alice.get(f"/prompts/{prompt_id}/").headers["ETag"]
    assert cost.counts == (statements, 0, 0), cost
    with measured() as cost:
        assert alice.get(f"/prompts/{prompt_id}/", headers={"If-None-Match": etag}).status_code == 304
    assert cost.counts == (statements, 0, 0), cost


@pytest.mark.parametrize("statements", [1, 2])
def test_a_list_is_one_statement_and_another_for_the_positions_of_queued_prompts(
    api, worker: Pipeline, statements: int
) -> None:
    alice, _, measured = api
    for i in range(3):
        alice.submit(f"prompt {i}")
    if statements == 1:
        worker.process(10)
    with measured() as cost:
        alice.get("/prompts/?limit=2")
    assert cost.counts == (statements, 0, 0), cost


def test_a_search_is_two_statements(api, worker: Pipeline) -> None:
    alice, _, measured = api
    alice.submit("the tides of the ocean")
    worker.process(1)
    alice.get("/prompts/similar/?prompt=tides")
    with measured() as cost:
        assert alice.get("/prompts/similar/?prompt=ocean").json
    assert cost.counts == (2, 0, 0), cost


@pytest.mark.parametrize("count", [1, 20])
def test_completing_prompts_is_two_statements_and_one_round_trip(api, costs, worker: Pipeline, count: int) -> None:
    alice, *_ = api
    worker.process(1)  # opens the connections
    ids = [alice.submit(f"prompt {i}", websocket=True) for i in range(count)]
    with costs(worker.sessions.kw["bind"], worker.autocommit_engine) as cost:
        worker.process(len(ids))
    assert cost.counts == (2, 0, 1), cost
    assert cost.redis_bytes < 800 * count
