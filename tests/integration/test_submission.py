"""Concurrent submissions: they are stored as one group, and each gets its own result."""

import threading

import pytest
from sqlalchemy import text

from api.intake.backlog import Backlog
from api.intake.submissions import Stored
from api.services import Services
from shared.db.engine import Sessions
from shared.errors import IdempotencyKeyInUseError, InvalidTokenError
from shared.prompts import submission
from shared.prompts.idempotency import KeyUse, fingerprint
from shared.prompts.submission import NewPrompt
from tests.support.client import ApiUser, assert_problem
from tests.support.servers import MAX_WAIT_SECONDS, wait_until
from tests.support.threads import at_once


class HeldGroup:
    """Hold up the group that is being stored, so that other submissions gather behind it."""

    def __init__(self, services: Services) -> None:
        self._submissions = services.submissions
        self._gate = threading.Event()
        self._stored = services.submissions._limits.count

    def __enter__(self) -> "HeldGroup":
        def count(user_ids):
            self._gate.wait(10)
            return self._stored(user_ids)

        self._submissions._limits.count = count
        return self

    def __exit__(self, *error: object) -> None:
        self._submissions._limits.count = self._stored
        self._gate.set()

    def release_with(self, waiting: int) -> None:
        """Release the group once this many submissions wait behind it."""
        wait_until(lambda: len(self._submissions._store._waiting) == waiting, what="the other submissions")
        self._submissions._limits.count = self._stored
        self._gate.set()


def submit_together(services: Services, submissions: list[tuple[NewPrompt, KeyUse | None]]) -> list[Stored | Exception]:
    """Submit these as one group, behind another one. Return their outcomes, in order."""
    outcomes: dict[int, Stored | Exception] = {}

    def submit(place: int, new_prompt: NewPrompt, use: KeyUse | None) -> None:
        try:
            outcomes[place] = services.submissions.store(new_prompt, use)
        except Exception as error:
            outcomes[place] = error

    first = NewPrompt(submissions[0][0].user_id, "the one before", False, "r")
    with HeldGroup(services) as held:
        threads = [threading.Thread(target=submit, args=(-1, first, None))]
        threads[0].start()
        wait_until(lambda: services.submissions._store._is_busy)
        wait_until(lambda: not services.submissions._store._waiting)
        for place, (new_prompt, use) in enumerate(submissions):
            threads.append(threading.Thread(target=submit, args=(place, new_prompt, use)))
            threads[-1].start()
            wait_until(lambda place=place: len(services.submissions._store._waiting) == place + 1)
        held.release_with(len(submissions))
        for thread in threads:
            thread.join(MAX_WAIT_SECONDS)
    return [outcomes[place] for place in range(len(submissions))]


def new_prompt(user: ApiUser, prompt_text: str = "Hi") -> NewPrompt:
    return NewPrompt(user.id, prompt_text, False, "r")


def test_a_group_is_one_insert_and_one_message(
    services: Services, alice: ApiUser, bob: ApiUser, sessions: Sessions
) -> None:
    before = services.queue.length()
    outcomes = submit_together(services, [(new_prompt((alice, bob)[i % 2], f"prompt {i}"), None) for i in range(6)])
    assert [outcome.prompt.prompt_text for outcome in outcomes] == [f"prompt {i}" for i in range(6)]
    with sessions() as session:
        rows = session.execute(text("SELECT id, prompt_text, xmin::text FROM prompts ORDER BY id")).all()
    assert [(row.id, row.prompt_text) for row in rows[1:]] == [
        (outcome.prompt.id, outcome.prompt.prompt_text) for outcome in outcomes
    ]
    assert len({row.xmin for row in rows[1:]}) == 1  # one transaction
    assert services.queue.length() == before + 2


def test_each_user_of_a_group_keeps_their_own_rate_limit(make_app) -> None:
    app, services = make_app(prompt_rate_limit="2/minute")
    alice, bob = ApiUser(app, "alice"), ApiUser(app, "bob")
    outcomes = submit_together(services, [(new_prompt(user), None) for user in (alice, alice, bob, alice, bob)])
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "Stored", "RateLimitedError", "Stored", "RateLimitedError", "Stored",
    ]  # fmt: skip


def test_a_submission_that_cannot_be_stored_fails_alone(services: Services, alice: ApiUser, bob: ApiUser) -> None:
    nobody = NewPrompt(2**40, "Hi", False, "r")
    outcomes = submit_together(services, [(new_prompt(alice), None), (nobody, None), (new_prompt(bob), None)])
    assert [isinstance(outcome, Stored) for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1], InvalidTokenError)
    assert len(alice.get("/prompts/").json) == 2


def test_a_submission_that_cannot_be_stored_does_not_affect_its_neighbours_rate_limit(make_app) -> None:
    app, services = make_app(prompt_rate_limit="2/minute")
    alice = ApiUser(app, "alice")
    outcomes = submit_together(services, [(new_prompt(alice), None), (NewPrompt(2**40, "Hi", False, "r"), None)])
    assert isinstance(outcomes[0], Stored)
    assert alice.post("/prompts/", json={"prompt_text": "a third"}).status_code == 429


def test_the_same_key_twice_in_a_group_makes_one_prompt(services: Services, alice: ApiUser, bob: ApiUser) -> None:
    def use(user: ApiUser) -> KeyUse:
        return KeyUse(user.id, "K", fingerprint("body"))

    one, again, other = submit_together(services, [(new_prompt(u), use(u)) for u in (alice, alice, bob)])
    assert isinstance(one, Stored)
    assert isinstance(again, IdempotencyKeyInUseError)
    assert isinstance(other, Stored)
    assert other.prompt.id != one.prompt.id
    assert services.submissions.store(new_prompt(alice), use(alice)) == Stored(
        one.prompt._replace(position=None), is_replay=True
    )


class TestBacklog:
    def test_a_submission_over_the_backlog_limit_is_503_until_there_is_room(self, make_app) -> None:
        app, _ = make_app(backlog_limit=3)
        alice = ApiUser(app, "alice")
        ids = [alice.submit() for _ in range(3)]
        response = alice.post("/prompts/", json={"prompt_text": "one too many"})
        assert_problem(response, 503)
        assert int(response.headers["Retry-After"]) >= 1
        assert len(alice.get("/prompts/").json) == 3
        assert alice.get(f"/prompts/{ids[0]}/").status_code == 200
        for prompt_id in ids[:2]:
            alice.post(f"/prompts/{prompt_id}/cancel/")
        wait_until(lambda: alice.post("/prompts/", json={"prompt_text": "again"}).status_code == 202)
        assert len(alice.get("/prompts/").json) == 4

    @pytest.mark.parametrize("headers", [{}, {"Origin": "https://app.example.com"}])
    def test_an_overload_refusal_is_a_problem_with_the_usual_headers(self, make_app, headers: dict) -> None:
        app, _ = make_app(backlog_limit=1, allowed_origins=("https://app.example.com",))
        alice = ApiUser(app, "alice")
        alice.submit()
        for path in ("/prompts/", "/prompts"):
            sent = {"X-Request-ID": "mine", **headers}
            response = alice.post(path, json={"prompt_text": "one too many"}, headers=sent)
            problem = assert_problem(response, 503)
            assert problem["type"] == "urn:promptwire:problem:overloaded"
            assert response.headers["X-Request-ID"] == "mine"
            assert "Origin" not in headers or "Access-Control-Allow-Origin" in response.headers

    def test_rejected_submissions_do_not_count_against_the_rate_limit(self, make_app) -> None:
        app, services = make_app(backlog_limit=1, prompt_rate_limit="2/minute")
        alice = ApiUser(app, "alice")
        first = alice.submit()
        assert [alice.post("/prompts/", json={"prompt_text": "Hi"}).status_code for _ in range(5)] == [503] * 5
        alice.post(f"/prompts/{first}/cancel/")
        wait_until(lambda: not services.submissions._backlog.is_full)
        alice.submit()

    def test_concurrent_submissions_do_not_exceed_the_backlog_limit(self, make_app) -> None:
        app, _ = make_app(backlog_limit=10)
        alice = ApiUser(app, "alice")
        statuses = at_once(30, lambda: alice.post("/prompts/", json={"prompt_text": "Hi"}).status_code)
        assert (statuses.count(202), statuses.count(503)) == (10, 20)

    @pytest.mark.parametrize(("there", "wanted", "room"), [(0, 5, 5), (98, 5, 2), (100, 5, 0), (150, 5, 0)])
    def test_the_backlog_has_room_for_the_rest(
        self, sessions: Sessions, alice: ApiUser, there: int, wanted: int, room: int
    ) -> None:
        backlog = Backlog(100)
        with sessions.begin() as session:
            if there:
                new_prompts = [new_prompt(alice)] * there
                submission.submit(session, new_prompts, grace=submission.timedelta(minutes=1), attempt_limit=1)
            assert backlog.room(session, wanted) == room
            backlog.added(room)
            assert backlog.is_full == (room < wanted)
