"""The limits of one user at the same time, which do not affect other users."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from werkzeug.test import TestResponse

from api.services import Services
from shared.settings import Settings
from tests.support.client import ApiUser, assert_problem
from tests.support.processes import RemoteUser
from tests.support.servers import MAX_WAIT_SECONDS, wait_until

LIMIT = 2
WAIT = {"Prefer": "wait=60"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    limits = ("user_socket_limit", "user_wait_limit", "user_search_limit")
    return settings.model_copy(update=dict.fromkeys(limits, LIMIT))


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(10) as made:
        yield made


def assert_refused(response: TestResponse, setting: str) -> None:
    problem = assert_problem(response, 429)
    assert problem["type"].endswith("/user-limit")
    assert setting in problem["detail"]
    assert f" {LIMIT} " in problem["detail"]
    assert int(response.headers["Retry-After"]) >= 1


class TestSearches:
    @pytest.fixture
    def finish(
        self, services: Services, alice: ApiUser, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[], list[TestResponse]]:
        """Has alice start as many searches as she may. Returns a function that lets them finish."""
        started, go_on = threading.Semaphore(0), threading.Event()
        search = services.store.search

        def slow_for_alice(user_id: int, *args):
            if user_id == alice.id:
                started.release()
                assert go_on.wait(MAX_WAIT_SECONDS)
            return search(user_id, *args)

        monkeypatch.setattr(services.store, "search", slow_for_alice)
        searches = [threads.submit(alice.get, "/prompts/similar/?prompt=tides") for _ in range(LIMIT)]
        for _ in searches:
            assert started.acquire(timeout=MAX_WAIT_SECONDS)

        def finish() -> list[TestResponse]:
            go_on.set()
            return [search.result(MAX_WAIT_SECONDS) for search in searches]

        return finish

    def test_one_more_search_is_429_until_another_has_ended(self, alice: ApiUser, finish) -> None:
        assert_refused(alice.get("/prompts/similar/?prompt=tides"), "USER_SEARCH_LIMIT")
        assert [response.status_code for response in finish()] == [200] * LIMIT
        assert alice.get("/prompts/similar/?prompt=tides").status_code == 200

    def test_another_user_searches_meanwhile(self, bob: ApiUser, finish) -> None:
        assert bob.get("/prompts/similar/?prompt=tides").status_code == 200
        finish()


class TestWaits:
    @pytest.fixture
    def prompt_id(self, alice: ApiUser) -> int:
        return alice.submit()

    @pytest.fixture
    def waiting(
        self, services: Services, alice: ApiUser, prompt_id: int, threads: ThreadPoolExecutor
    ) -> Iterator[list[Future]]:
        """Requests of alice that wait for her prompt: as many as she may have."""
        started = [threads.submit(alice.get, f"/prompts/{prompt_id}/", headers=WAIT) for _ in range(LIMIT)]
        wait_until(lambda: self.count(services, alice) == LIMIT)
        yield started
        alice.post(f"/prompts/{prompt_id}/cancel/")

    @staticmethod
    def count(services: Services, user: ApiUser) -> int:
        room = services.relay._rooms.get(user.id)
        return 0 if room is None else len(room.subscribers)

    def test_one_more_waiting_request_is_429_until_another_has_ended(
        self, alice: ApiUser, prompt_id: int, waiting: list[Future]
    ) -> None:
        assert_refused(alice.get(f"/prompts/{prompt_id}/", headers=WAIT), "USER_WAIT_LIMIT")
        alice.post(f"/prompts/{prompt_id}/cancel/")
        assert [each.result(MAX_WAIT_SECONDS).json["status"] for each in waiting] == ["cancelled"] * LIMIT
        assert alice.get(f"/prompts/{prompt_id}/", headers=WAIT).status_code == 200

    def test_a_refused_submission_that_wants_to_wait_stores_nothing(self, alice: ApiUser, waiting) -> None:
        assert_refused(alice.post("/prompts/", json={"prompt_text": "Hi"}, headers=WAIT), "USER_WAIT_LIMIT")
        assert len(alice.get("/prompts/").json) == 1
        assert alice.post("/prompts/", json={"prompt_text": "Hi"}).status_code == 202

    def test_streams_and_waiting_requests_count_together(self, alice: ApiUser, prompt_id: int, waiting) -> None:
        assert_refused(alice.get(f"/prompts/{prompt_id}/stream/"), "USER_WAIT_LIMIT")

    def test_another_user_waits_and_streams_meanwhile(self, bob: ApiUser, waiting) -> None:
        prompt_id = bob.submit()
        assert bob.get(f"/prompts/{prompt_id}/", headers={"Prefer": "wait=0"}).status_code == 200
        bob.get(f"/prompts/{prompt_id}/stream/").close()
        bob.post(f"/prompts/{prompt_id}/cancel/")
        assert b"prompt.cancelled" in bob.get(f"/prompts/{prompt_id}/stream/").data

    @pytest.mark.parametrize("chunks", [0, 2])
    def test_a_stream_counts_until_it_is_closed(self, alice: ApiUser, prompt_id: int, chunks: int) -> None:
        streams = [alice.get(f"/prompts/{prompt_id}/stream/") for _ in range(LIMIT)]
        for stream in streams:
            for _ in range(chunks):
                next(stream.response)
        assert_refused(alice.get(f"/prompts/{prompt_id}/stream/"), "USER_WAIT_LIMIT")
        streams[0].close()
        streams[0] = alice.get(f"/prompts/{prompt_id}/stream/")
        assert streams[0].status_code == 200
        for stream in streams:
            stream.close()

    def test_a_head_request_for_a_stream_does_not_count(self, alice: ApiUser, prompt_id: int) -> None:
        for _ in range(LIMIT + 1):
            response = alice.call("HEAD", f"/prompts/{prompt_id}/stream/")
            assert response.status_code == 200
            response.close()  # as a server does


class TestSockets:
    def test_one_more_socket_is_closed_with_4429_until_another_is_closed(
        self, app_url: str, services: Services
    ) -> None:
        alice = RemoteUser(app_url)
        with alice.join() as one, alice.join() as two:
            assert [room.receive()["type"] for room in (one, two)] == ["connected"] * LIMIT
            with alice.join() as refused:
                assert "USER_SOCKET_LIMIT" in refused.receive()["error"]
                assert refused.close_code() == 4429
        wait_until(lambda: not services.user_limits.sockets._held)
        with alice.join() as again:
            assert again.receive()["type"] == "connected"

    def test_another_user_joins_meanwhile(self, app_url: str) -> None:
        alice, bob = RemoteUser(app_url), RemoteUser(app_url)
        with alice.join() as one, alice.join() as two, bob.join() as other:
            assert [room.receive()["type"] for room in (one, two, other)] == ["connected"] * 3

    def test_a_refused_socket_does_not_count(self, app_url: str, services: Services) -> None:
        alice = RemoteUser(app_url)
        for _ in range(LIMIT + 1):
            with alice.join(path=f"/ws/prompts/{alice.username}/?since=x") as refused:
                refused.receive()
                assert refused.close_code() == 4400
        with alice.join() as room:
            assert room.receive()["type"] == "connected"
