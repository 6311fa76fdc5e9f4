"""Reindexing while vectors are missing."""

from collections.abc import Iterator
from functools import partial

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from shared.db.engine import Sessions
from shared.settings import Settings
from tests.support.client import ApiUser
from tests.support.embedders import FlakyEmbedder, Worker, make_due
from tests.support.missing_vectors import RUST, TIDES, answer_without_vector, fetch, find, vectors
from tests.support.providers import Backwards
from tests.support.servers import environment_of
from tests.support.vectors import add_completed
from worker.reindex.__main__ import main as reindex_command
from worker.services import make_services


def test_missing_vectors_are_reported_but_are_not_a_difference(
    alice: ApiUser, bob: ApiUser, worker: Worker, embedder: FlakyEmbedder, settings: Settings, sessions: Sessions
) -> None:
    answer_without_vector(alice, worker, embedder, TIDES, RUST)
    answer_without_vector(bob, worker, embedder, TIDES)
    with sessions.begin() as session:
        given_up = "UPDATE prompts SET vector_due_at = 'infinity', vector_failures = 5 WHERE user_id = :user_id"
        session.execute(text(given_up), {"user_id": bob.id})
    run = partial(CliRunner().invoke, reindex_command, env=environment_of(settings))
    checked = run(["--check"])
    assert checked.exit_code == 0, checked.output
    assert "alice: 2 prompts that wait for their vector\n" in checked.stdout
    assert "bob: 1 prompts that the embedder refuses\n" in checked.stdout
    assert "2 users compared, 0 with differences" in checked.stdout
    assert "1 prompts that the embedder refused will be tried again by the workers." in run([]).stdout
    assert worker.embed_due() == 3
    assert "refuses" not in run(["--check"]).stdout


def test_reindexing_leaves_missing_vectors_of_the_compared_embedder_to_the_workers(
    alice: ApiUser, worker: Worker, embedder: FlakyEmbedder, settings: Settings, sessions: Sessions
) -> None:
    (known,) = add_completed(sessions, alice.id, [RUST])
    (prompt_id,) = answer_without_vector(alice, worker, embedder, TIDES)
    services = make_services(settings)
    assert services.reindexer.reindex(alice.id)
    services.pipeline.sessions.kw["bind"].dispose()
    assert vectors(sessions) == [known]
    assert find(alice, TIDES) == ([prompt_id], None)


@pytest.fixture
def backwards() -> Backwards:
    return Backwards(None)  # type: ignore[arg-type]


@pytest.fixture
def reindexer(settings: Settings, servers) -> Iterator:
    switched = servers.changed(settings, embedder="tests.support.providers:Backwards", previous_embedder="hashing")
    made = make_services(switched)
    yield made.reindexer
    made.pipeline.sessions.kw["bind"].dispose()


def test_a_vector_by_the_embedder_before_the_switch_is_not_stored_after_it(
    alice: ApiUser, make_flaky_worker, embedder: FlakyEmbedder, backwards: Backwards, reindexer, sessions: Sessions
) -> None:
    add_completed(sessions, alice.id, [RUST])
    worker = make_flaky_worker(backwards, embedder)
    (prompt_id,) = answer_without_vector(alice, worker, embedder, TIDES)
    embedder.during = lambda: reindexer.reindex(alice.id)
    worker.embed_due()
    make_due(sessions)
    worker.embed_due()
    rows = fetch(sessions, "SELECT embedder, prompt_id FROM vector_log ORDER BY prompt_id")
    assert [embedder for embedder, _ in rows] == ["backwards-1"] * 2
    assert rows[-1][1] == prompt_id
    assert fetch(sessions, "SELECT count(*) FROM prompts WHERE vector_due_at IS NOT NULL") == [(0,)]


def test_reindexing_embeds_missing_ones_and_the_old_embedders_vector_may_come_meanwhile(
    alice: ApiUser,
    make_flaky_worker,
    embedder: FlakyEmbedder,
    backwards: Backwards,
    reindexer,
    sessions: Sessions,
    monkeypatch,
) -> None:
    monkeypatch.setattr("worker.reindex.reindexer.EMBED_BATCH", 2)
    monkeypatch.setattr("worker.reindex.reindexer.SLICE_SECONDS", 0)
    old = add_completed(sessions, alice.id, [RUST, "number one", "number two"])
    worker = make_flaky_worker(backwards, embedder)
    ids = answer_without_vector(alice, worker, embedder, TIDES, "number three")
    assert not reindexer.reindex(alice.id)
    assert worker.embed_due() == 2  # by the old embedder, which searches still compare
    while not reindexer.reindex(alice.id):
        pass
    rows = fetch(sessions, "SELECT prompt_id, embedder FROM vector_log WHERE vector IS NOT NULL ORDER BY 1")
    assert rows == [(prompt_id, "backwards-1") for prompt_id in [*old, *ids]]
    assert fetch(sessions, "SELECT count(*) FROM prompts WHERE vector_due_at IS NOT NULL") == [(0,)]


def test_a_text_that_the_new_embedder_refuses_does_not_stop_reindexing(
    alice: ApiUser, make_flaky_worker, embedder: FlakyEmbedder, settings: Settings, sessions: Sessions
) -> None:
    """The users have vectors of another embedder, and `embedder` is the new one."""
    ids = add_completed(sessions, alice.id, [RUST, TIDES])
    with sessions.begin() as session:
        session.execute(text("UPDATE vector_log SET embedder = 'older'"))
        session.execute(text("UPDATE users SET embedder = 'older'"))
    embedder.refused = {RUST: ZeroDivisionError()}
    services = make_services(settings)
    services.reindexer._embedder = embedder
    assert services.reindexer.reindex(alice.id)
    services.pipeline.sessions.kw["bind"].dispose()
    assert vectors(sessions) == [ids[1]]
    assert find(alice, TIDES) == ([ids[1]], "1")
    embedder.recover()
    worker = make_flaky_worker()
    make_due(sessions)
    assert worker.embed_due() == 1
    assert find(alice, RUST) == ([ids[0]], None)
