"""RETENTION_DAYS: old prompts lose their texts, answers, errors and vectors, everywhere; counts stay."""

import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from click.testing import CliRunner
from flask import Flask
from sqlalchemy import text

from shared.db.engine import Sessions
from shared.db.models import Base, SegmentEntry
from shared.errors import ProviderError
from shared.prompts import queries, retention
from shared.providers import Exchange
from shared.search.prompt_search import Mode
from shared.settings import Settings
from tests.support.client import ApiUser, assert_problem, serving
from tests.support.processes import RemoteUser
from tests.support.providers import Counting, Script
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, environment_of, make_settings, wait_until
from worker.maintenance.emptier import Emptier
from worker.pipeline import Pipeline
from worker.reindex.__main__ import main as reindex

MARKER = "xylophone"
DAYS = 30


@pytest.fixture(params=["faiss", "pgvector"])
def vector_store(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def sealed() -> list[int]:
    """The users whose segments are to be rebuilt."""
    return []


@pytest.fixture
def emptier(sessions: Sessions, sealed: list[int]) -> Emptier:
    return Emptier(sessions, DAYS, sealed.append)


@pytest.fixture
def grow_old(sessions: Sessions) -> Callable[..., None]:
    """Make prompts old: these, or all."""

    def age(*prompt_ids: int) -> None:
        which = {"age": timedelta(days=DAYS, minutes=1), "ids": list(prompt_ids), "all": not prompt_ids}
        with sessions.begin() as session:
            session.execute(
                text("UPDATE prompts SET created_at = created_at - :age WHERE :all OR id = ANY(:ids)"), which
            )

    return age


def found(user: ApiUser) -> list[int]:
    """What a search for the marker finds, in every mode."""
    by_mode = [user.get(f"/prompts/similar/?prompt={MARKER}&mode={mode}").json for mode in Mode]
    first, *others = ([prompt["id"] for prompt in prompts] for prompts in by_mode)
    assert others == [first, first]
    return first


def places(sessions: Sessions, marker: str) -> set[str]:
    """The columns of all tables that contain the marker."""
    with sessions() as session:
        tables = session.scalars(text("SELECT relname FROM pg_stat_user_tables")).all()
        rows = {table: session.scalars(text(f'SELECT "{table}"::text FROM "{table}"')).all() for table in tables}  # noqa: S608
    return {table for table, contents in rows.items() if any(marker in content for content in contents)}


def count(sessions: Sessions, table: str) -> int:
    with sessions() as session:
        return session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()  # noqa: S608


@pytest.fixture
def completed(alice: ApiUser, worker: Pipeline) -> int:
    """A completed prompt of alice."""
    asked = {"instructions": f"{MARKER} instructions", "metadata": {"instrument": MARKER}}
    body = {"prompt_text": f"{MARKER} question", "websocket": True, **asked}
    prompt_id = alice.post("/prompts/", json=body).json["id"]
    dataclasses.replace(worker, generator=Script(f"{MARKER} answer")).process(1)
    return prompt_id


@pytest.fixture
def failed(alice: ApiUser, worker: Pipeline) -> int:
    """A failed prompt of alice, whose error quotes it."""
    prompt_id = alice.submit(f"{MARKER} poison", websocket=True)
    error = ProviderError(f"I will not say {MARKER}", retryable=False)
    dataclasses.replace(worker, generator=Script(error)).process(1)
    return prompt_id


def test_an_old_prompt_keeps_its_counts_and_times_and_loses_its_texts(
    alice: ApiUser, completed: int, emptier: Emptier, grow_old: Callable[..., None]
) -> None:
    grow_old()
    before = alice.show(completed)
    emptier.round()
    shown = alice.show(completed)
    assert shown.pop("emptied_at") > before["completed_at"]
    assert before.pop("emptied_at") is None
    assert before.pop("request")
    assert before["metadata"]
    assert shown == before | {"prompt_text": "", "response_text": None, "metadata": {}}


def test_no_table_has_the_texts_of_emptied_prompts(
    alice: ApiUser, completed: int, failed: int, emptier: Emptier, sessions: Sessions, grow_old: Callable[..., None]
) -> None:
    assert found(alice) == [completed]
    assert {"prompts", "prompt_words", "feed"} <= places(sessions, MARKER)
    grow_old()
    emptier.round()
    assert places(sessions, MARKER) == set()


def test_the_search_for_the_marker_knows_all_tables_of_the_models(sessions: Sessions) -> None:
    with sessions() as session:
        tables = set(session.scalars(text("SELECT relname FROM pg_stat_user_tables")))
    assert tables >= {table.name for table in Base.metadata.sorted_tables}


def test_an_emptied_prompt_is_not_found_and_no_copy_of_its_vector_is_kept(
    app: Flask,
    alice: ApiUser,
    completed: int,
    emptier: Emptier,
    sessions: Sessions,
    settings: Settings,
    grow_old: Callable[..., None],
) -> None:
    assert found(alice) == [completed]
    grow_old()
    emptier.round()
    with sessions() as session:
        assert session.execute(text("SELECT count(vector), count(*) FROM vector_log")).one() == (0, 1)
    if settings.vector_store == "pgvector":
        assert count(sessions, "pgvector_vectors") == 0
    assert found(alice) == []


@pytest.mark.parametrize(("days", "is_there"), [("30", "True"), ("", "False")])
def test_workers_empty_prompts_only_if_retention_days_is_set(days: str, is_there: str) -> None:
    program = "from worker.app import _make_maintenance_jobs as jobs; print('emptier' in jobs())"
    environment = os.environ | environment_of(make_settings()) | {"RETENTION_DAYS": days}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=MAX_WAIT_SECONDS
    )
    assert ran.stdout == f"{is_there}\n"


def test_young_prompts_of_the_same_user_are_still_found(
    alice: ApiUser, worker: Pipeline, completed: int, emptier: Emptier, grow_old: Callable[..., None]
) -> None:
    young = alice.submit(f"{MARKER} again")
    worker.process(1)
    grow_old(completed)
    emptier.round()
    assert found(alice) == [young]
    assert alice.show(young)["emptied_at"] is None


def test_an_unfinished_prompt_is_emptied_once_it_has_ended(
    alice: ApiUser, completed: int, emptier: Emptier, worker: Pipeline, grow_old: Callable[..., None]
) -> None:
    queued = alice.submit(f"{MARKER} later")
    grow_old()
    emptier.round()
    assert alice.show(queued)["prompt_text"] == f"{MARKER} later"
    worker.process(1)
    emptier.round()
    assert alice.show(queued)["prompt_text"] == ""


def test_all_old_prompts_of_all_users_are_emptied_in_batches(
    alice: ApiUser, bob: ApiUser, worker: Pipeline, sessions: Sessions, grow_old: Callable[..., None]
) -> None:
    for user in (alice, bob, alice, bob, alice):
        user.submit(MARKER)
    worker.process(10)
    grow_old()
    after, emptied = 0, []
    while True:
        with sessions.begin() as session:
            batch = retention.empty_batch(session, timedelta(days=DAYS), after=after, limit=2)
        after, emptied = batch.reached, [*emptied, batch.prompts]
        if not batch.more:
            break
    assert emptied == [2, 2, 1]
    assert places(sessions, MARKER) == set()
    assert (found(alice), found(bob)) == ([], [])


def test_emptiers_of_several_hosts_empty_each_prompt_once(
    completed: int, failed: int, sessions: Sessions, emptier: Emptier, grow_old: Callable[..., None]
) -> None:
    grow_old()
    emptier.round()
    seq, entries = count(sessions, "vector_log"), count(sessions, "feed")
    Emptier(sessions, DAYS, lambda _: None).round()
    assert (count(sessions, "vector_log"), count(sessions, "feed")) == (seq, entries)


def test_segments_with_emptied_prompts_are_rebuilt(
    alice: ApiUser,
    completed: int,
    emptier: Emptier,
    sessions: Sessions,
    sealed: list[int],
    grow_old: Callable[..., None],
) -> None:
    with sessions.begin() as session:
        session.add(
            SegmentEntry(
                user_id=alice.id, embedder="hashing", first_seq=1, last_seq=1, count=1, checksum=b"", faiss_version=""
            )
        )
    grow_old()
    emptier.round()
    assert sealed == [alice.id]


def test_an_emptied_prompt_without_a_vector_gets_none(
    alice: ApiUser,
    completed: int,
    emptier: Emptier,
    sessions: Sessions,
    settings: Settings,
    grow_old: Callable[..., None],
) -> None:
    """Its vector was missing; neither a search nor a reindex embeds an empty text."""
    with sessions.begin() as session:
        session.execute(text("DELETE FROM vector_log"))
        session.execute(text("UPDATE prompts SET vector_due_at = now()"))
        session.execute(text("UPDATE users SET vectors_missing = true"))
    grow_old()
    emptier.round()
    assert found(alice) == []
    checked = CliRunner().invoke(reindex, ["--check"], env=environment_of(settings))
    assert (checked.exit_code, checked.output.splitlines()[-1]) == (0, "1 users compared, 0 with differences.")
    assert count(sessions, "vector_log") == 0


def test_a_search_that_races_with_the_emptier_shows_no_empty_prompt(
    alice: ApiUser, completed: int, emptier: Emptier, sessions: Sessions, grow_old: Callable[..., None]
) -> None:
    grow_old()
    emptier.round()
    with sessions() as session:
        assert queries.ranked(session, alice.id, [completed], max_bytes=1_000).prompts == []
        assert queries.completed(session, alice.id, [completed]) == {}


def test_a_reindex_that_stores_vectors_meanwhile_leaves_none(
    completed: int, emptier: Emptier, sessions: Sessions, grow_old: Callable[..., None]
) -> None:
    grow_old()
    with sessions() as reindexing:
        # As `Reindexer` does, which adds vectors of another embedder.
        locked = text("SELECT FROM prompts WHERE id = :id FOR KEY SHARE")
        reindexing.execute(locked, {"id": completed})
        copied = "SELECT user_id, seq, 'another', prompt_id, vector FROM vector_log"
        reindexing.execute(text(f"INSERT INTO vector_log (user_id, seq, embedder, prompt_id, vector) {copied}"))
        emptying = threading.Thread(target=emptier.round)
        emptying.start()
        wait_until(lambda: waiting_for_locks(sessions) == 1)
        reindexing.commit()
        emptying.join(MAX_WAIT_SECONDS)
    with sessions() as session:
        assert session.scalar(text("SELECT count(vector) FROM vector_log")) == 0


def waiting_for_locks(sessions: Sessions) -> int:
    """How many connections to this database wait for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with sessions() as session:
        return session.execute(text(query)).scalar_one()


class TestClients:
    """What clients of emptied prompts get."""

    @pytest.fixture
    def vector_store(self) -> str:
        return "faiss"

    @pytest.fixture(autouse=True)
    def emptied(self, completed: int, failed: int, emptier: Emptier, grow_old: Callable[..., None]) -> None:
        grow_old()
        emptier.round()

    def test_a_list_shows_them_without_texts(self, alice: ApiUser) -> None:
        shown = alice.get("/prompts/").json
        assert [(each["status"], each["prompt_text"], each["response_text"], each["error"]) for each in shown] == [
            ("failed", "", None, None),
            ("completed", "", None, None),
        ]

    def test_a_retry_is_409_with_a_sentence(self, alice: ApiUser, failed: int) -> None:
        problem = assert_problem(alice.post(f"/prompts/{failed}/retry/"), 409)
        assert problem["detail"].startswith("The texts of this prompt were removed because of its age")
        assert alice.show(failed)["status"] == "failed"

    def test_a_socket_gets_the_missed_events_without_texts_and_no_gap(self, app: Flask, alice: ApiUser) -> None:
        with serving(app) as url, RemoteUser(url, "alice", is_new=False).join(since=0) as room:
            joined, *events = [room.receive() for _ in range(3)]
            assert joined["seq"] == 3  # the vector's removal has a number, too
            assert [(e["type"], e["seq"], e["prompt_text"], e["response_text"]) for e in events] == [
                ("prompt.completed", 1, "", None),
                ("prompt.failed", 2, "", None),
            ]
            assert events[1]["error"] is None

    def test_a_stream_of_an_emptied_prompt_ends_without_a_text(self, alice: ApiUser, completed: int) -> None:
        events = alice.get(f"/prompts/{completed}/stream/").text
        assert "prompt.delta" not in events
        assert "event: prompt.completed" in events

    def test_a_copy_from_before_is_out_of_date(
        self, alice: ApiUser, completed: int, sessions: Sessions, grow_old: Callable[..., None]
    ) -> None:
        etag = alice.get(f"/prompts/{completed}/").headers["ETag"]
        assert etag == '"completed-1-1-emptied"'
        assert alice.get(f"/prompts/{completed}/", headers={"If-None-Match": etag}).status_code == 304
        earlier = {"If-None-Match": '"completed-1-1"'}
        assert alice.get(f"/prompts/{completed}/", headers=earlier).status_code == 200

    def test_they_can_be_deleted(self, alice: ApiUser, completed: int) -> None:
        assert alice.delete(f"/prompts/{completed}/").status_code == 204

    def test_answers_of_emptied_prompts_are_not_reused_and_are_not_history(
        self, alice: ApiUser, worker: Pipeline
    ) -> None:
        body = {"prompt_text": f"{MARKER} question", "cache": True}
        generator = Counting("script")  # the name of the one that answered before
        answering = dataclasses.replace(worker, generator=generator)
        prompt_id = alice.post("/prompts/", json=body).json["id"]
        answering.process(1)
        assert alice.show(prompt_id)["cached_from"] is None
        alice.post("/prompts/", json={"prompt_text": f"{MARKER} more", "history": 5})
        answering.process(1)
        assert [list(request.history) for request in generator.asked] == [
            [],
            [Exchange(f"{MARKER} question", "answer 1")],
        ]
