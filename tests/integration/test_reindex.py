"""Reindexing: after a change of the embedder while searches continue, and to repair differences."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

from api.services import Services as ApiServices
from shared.db.engine import Sessions
from shared.providers import embed
from shared.settings import Settings
from tests.support import processes
from tests.support.client import ApiUser
from tests.support.providers import Script
from tests.support.servers import ROOT, Servers, environment_of
from tests.support.vectors import EACH_STORE, add_completed
from worker.reindex import reindexer
from worker.reindex.__main__ import main
from worker.services import Services, make_services

TEXTS = ["What causes ocean tides?", "Write a haiku about rust", "Suggest a name for my cat", "Convert 5 miles to km"]
BACKWARDS = "tests.support.providers:Backwards"


@pytest.fixture
def switched(servers: Servers, settings: Settings) -> Settings:
    """The settings after a change of the embedder, with the old one kept for searches."""
    return servers.changed(settings, embedder=BACKWARDS, previous_embedder="hashing")


@pytest.fixture
def make_worker() -> Iterator[Callable[[Settings], Services]]:
    made: list[Services] = []

    def make(settings: Settings) -> Services:
        made.append(make_services(settings))
        return made[-1]

    yield make
    for services in made:
        services.pipeline.sessions.kw["bind"].dispose()


@pytest.fixture
def slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit a task to two prompts."""
    monkeypatch.setattr(reindexer, "EMBED_BATCH", 2)
    monkeypatch.setattr(reindexer, "SLICE_SECONDS", 0)


def nearest(services: ApiServices, user_id: int, query: str, k: int = 1) -> list[int]:
    found = services.store.search(user_id, lambda embedder: embed(embedder, [query])[0], k).matches
    return [match.prompt_id for match in found if match.distance < 1e-3]


def embedders(sessions: Sessions) -> list[tuple[str, int]]:
    """Count the vectors by embedder."""
    with sessions() as session:
        query = "SELECT embedder, count(*) FROM vector_log WHERE vector IS NOT NULL GROUP BY 1 ORDER BY 1"
        return [tuple(row) for row in session.execute(text(query))]


@EACH_STORE
def test_searches_compare_the_old_vectors_until_all_new_ones_are_there(
    make_app, make_worker, switched: Settings, sessions: Sessions, alice: ApiUser, slices: None
) -> None:
    ids = add_completed(sessions, alice.id, TEXTS)
    _, searching = make_app(embedder=BACKWARDS, previous_embedder="hashing")
    work = make_worker(switched)
    for _ in range(2):
        assert [nearest(searching, alice.id, each) for each in TEXTS] == [[i] for i in ids]
        assert not work.reindexer.reindex(alice.id)
    new = alice.submit("Why is the sea salty?")
    work.pipeline.process(1)
    assert embedders(sessions) == [("backwards-1", 4), ("hashing-1", 5)]
    assert nearest(searching, alice.id, "Why is the sea salty?") == [new]
    assert not work.reindexer.reindex(alice.id)
    assert work.reindexer.reindex(alice.id)
    assert embedders(sessions) == [("backwards-1", 5)]
    assert [nearest(searching, alice.id, each) for each in TEXTS] == [[i] for i in ids]
    assert nearest(searching, alice.id, "Why is the sea salty?") == [new]


def test_a_prompt_that_was_claimed_before_the_switch_is_found_after_it(
    make_app, make_worker, switched: Settings, sessions: Sessions, alice: ApiUser
) -> None:
    add_completed(sessions, alice.id, TEXTS)
    work = make_worker(switched)
    generator = Script("a b", between_chunks=lambda: work.reindexer.reindex(alice.id))
    prompt_id = alice.submit("Why is the sea salty?")
    replace(work.pipeline, generator=generator).process(1)
    assert alice.show(prompt_id)["status"] == "completed"
    assert embedders(sessions) == [("backwards-1", 5)]
    assert nearest(make_app(embedder=BACKWARDS)[1], alice.id, "Why is the sea salty?") == [prompt_id]


def test_a_prompt_deleted_during_reindexing_stays_deleted(
    make_app, make_worker, switched: Settings, sessions: Sessions, alice: ApiUser, slices: None
) -> None:
    ids = add_completed(sessions, alice.id, TEXTS)
    work = make_worker(switched)
    assert not work.reindexer.reindex(alice.id)
    for gone in (ids[0], ids[3]):
        alice.delete(f"/prompts/{gone}/")
    while not work.reindexer.reindex(alice.id):
        pass
    assert embedders(sessions) == [("backwards-1", 2)]
    assert nearest(make_app(embedder=BACKWARDS)[1], alice.id, TEXTS[0]) == []


def test_without_the_previous_embedder_old_prompts_are_found_only_after_reindexing(
    make_app, make_worker, servers: Servers, settings: Settings, sessions: Sessions, alice: ApiUser
) -> None:
    (old, *_) = add_completed(sessions, alice.id, TEXTS)
    work = make_worker(servers.changed(settings, embedder=BACKWARDS))
    _, searching = make_app(embedder=BACKWARDS)
    new = alice.submit("Why is the sea salty?")
    work.pipeline.process(1)
    assert nearest(searching, alice.id, "Why is the sea salty?") == [new]
    assert nearest(searching, alice.id, TEXTS[0]) == []
    assert work.reindexer.reindex(alice.id)
    assert nearest(searching, alice.id, TEXTS[0]) == [old]
    assert nearest(searching, alice.id, "Why is the sea salty?") == [new]


def test_a_user_is_reindexed_by_one_process_at_a_time_and_repeating_it_is_harmless(
    make_worker, switched: Settings, sessions: Sessions, alice: ApiUser
) -> None:
    add_completed(sessions, alice.id, TEXTS)
    work = make_worker(switched)
    with reindexer.index_lock(sessions, alice.id):
        assert not work.reindexer.reindex(alice.id)
    assert work.reindexer.reindex(alice.id)
    assert work.reindexer.reindex(alice.id)
    assert embedders(sessions) == [("backwards-1", 4)]


class TestCommand:
    @staticmethod
    def _run(settings: Settings, *arguments: str) -> Result:
        """Run the command in this process."""
        return CliRunner().invoke(main, arguments, env=environment_of(settings))

    @staticmethod
    def _run_process(settings: Settings, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "worker.reindex", *arguments]
        environment = {"PATH": "/usr/bin:/bin"} | environment_of(settings)
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)

    def test_the_command_reports_differences_and_has_them_repaired(
        self,
        settings: Settings,
        servers: Servers,
        sessions: Sessions,
        make_app,
        make_worker,
        alice: ApiUser,
        bob: ApiUser,
    ) -> None:
        sealing = servers.changed(settings, seal_from_vectors=256)
        ids = add_completed(sessions, alice.id, [f"number {i}" for i in range(300)])
        add_completed(sessions, bob.id, TEXTS)
        make_worker(sealing).maintenance.seal(alice.id)
        assert "2 users compared, 0 with differences" in self._run(sealing, "--check").stdout
        with sessions.begin() as session:
            for statement in (
                "DELETE FROM vector_log WHERE prompt_id = :first",
                "UPDATE vector_log SET vector = '\\x00' WHERE prompt_id = :second",
                "INSERT INTO vector_log (user_id, seq, prompt_id, embedder, vector) "
                "SELECT user_id, 0, 999999, embedder, vector FROM vector_log WHERE prompt_id = :third",
                "UPDATE segment_parts SET data = set_byte(data, 70000, 255 - get_byte(data, 70000))",
            ):
                session.execute(text(statement), dict(zip(("first", "second", "third"), ids, strict=False)))
        checked = self._run(sealing, "--check")
        assert checked.exit_code == 1
        report = "alice: 1 prompts without a vector, 1 vectors without a prompt, 1 damaged vectors, 1 bad segments"
        assert report in checked.stdout
        assert "2 users compared, 1 with differences" in checked.stdout
        with processes.worker(sealing):
            repaired = self._run_process(sealing)
        assert repaired.returncode == 0, repaired.stdout + repaired.stderr
        assert self._run(sealing, "--check").exit_code == 0
        _, searching = make_app()
        for i in (0, 1, 2, 299):
            assert nearest(searching, alice.id, f"number {i}") == [ids[i]]

    def test_the_command_moves_all_users_to_another_embedder(
        self, switched: Settings, sessions: Sessions, make_app, alice: ApiUser, bob: ApiUser
    ) -> None:
        ids = [add_completed(sessions, user.id, TEXTS)[0] for user in (alice, bob)]
        with processes.worker(switched):
            done = self._run(switched)
        assert done.exit_code == 0, done.output
        assert "alice: searches compare vectors by hashing-1, 4 prompts without a vector" in done.stdout
        assert embedders(sessions) == [("backwards-1", 8)]
        _, searching = make_app(embedder=BACKWARDS)
        assert [nearest(searching, user.id, TEXTS[0]) for user in (alice, bob)] == [[i] for i in ids]
        assert "Nothing to do." in self._run(switched).stdout

    def test_the_command_can_be_limited_to_one_user(
        self, switched: Settings, sessions: Sessions, alice: ApiUser, bob: ApiUser
    ) -> None:
        for user in (alice, bob):
            add_completed(sessions, user.id, TEXTS)
        assert "1 users compared, 1 with differences" in self._run(switched, "--check", "--user", "bob").stdout
        assert "User carol does not exist" in self._run(switched, "--user", "carol").stderr
