"""The parts of the client: retries, stored logins, requests and responses, the text stream, output."""

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import click
import httpx
import pytest
from click.testing import CliRunner, Result
from websockets.sync.server import ServerConnection

from api.client import (
    Client,
    Event,
    FileTokenStore,
    Login,
    MemoryTokenStore,
    NotLoggedInError,
    ProblemError,
    UnreachableError,
)
from api.client.__main__ import main
from api.client.http import HttpClient
from api.client.options import Exit
from api.client.output import printable, shorten, table
from api.client.retries import UNLIMITED
from api.client.session import Session
from api.client.text_stream import follow
from tests.support.room_server import room_server
from tests.support.servers import MAX_WAIT_SECONDS, ROOT
from tests.support.stub_api import DROP, Answer, StubApi

ALICE = Login("alice", "access-1", "refresh-1")
QUEUED = {"id": 7, "status": "queued"}
BUSY = Answer(429, {"detail": "Too many requests."}, {"Retry-After": "7"})
BROKEN = Answer(500, {"detail": "Something went wrong on our side."})
IN_USE = Answer(409, {"type": "urn:promptwire:problem:idempotency-key-in-use"})
UNAUTHORIZED = Answer(401, {"detail": "The token is malformed or has expired."})
NOT_FOUND, CONFLICT = Answer(404), Answer(409)


@pytest.fixture
def pauses() -> list[float]:
    """The delays, in seconds, that the client asked for; none of them is slept."""
    return []


@pytest.fixture
def client(stub: StubApi, pauses: list[float]) -> Iterator[Client]:
    token_store = MemoryTokenStore()
    token_store.write(ALICE)
    with Client(stub.url, token_store=token_store, timeout=60, retries=4, pause=pauses.append) as client:
        yield client


class TestRetries:
    @pytest.mark.parametrize("status", [429, 503])
    def test_retry_after_sets_the_delay(self, client: Client, stub: StubApi, pauses: list[float], status: int) -> None:
        stub.answers = [Answer(status, {}, {"Retry-After": "7"}), Answer(202, QUEUED)]
        assert client.submit("Hi") == QUEUED
        (paused,) = pauses
        assert 7 <= paused < 8

    def test_retry_after_may_be_a_date(self, client: Client, stub: StubApi, pauses: list[float]) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
        stub.answers = [Answer(503, {}, {"Retry-After": date}), Answer(202, QUEUED)]
        client.submit("Hi")
        assert 0 < pauses[0] < 41

    def test_retries_at_a_time_that_the_server_named_do_not_count(self, client: Client, stub: StubApi) -> None:
        stub.answers = [*[BUSY] * 10, Answer(202, QUEUED)]
        assert client.submit("Hi") == QUEUED

    def test_a_retry_after_beyond_the_timeout_ends_the_retries(
        self, client: Client, stub: StubApi, pauses: list[float]
    ) -> None:
        stub.answers = [Answer(429, {"detail": "Too many requests."}, {"Retry-After": "61"})]
        with pytest.raises(ProblemError, match="Too many requests") as refused:
            client.submit("Hi")
        assert (refused.value.status, pauses) == (429, [])

    def test_delays_without_retry_after_double_with_jitter_and_are_limited(
        self, client: Client, stub: StubApi, pauses: list[float]
    ) -> None:
        stub.answers = [DROP]
        with pytest.raises(UnreachableError, match=re.escape(stub.url)):
            client.show(7)
        assert len(pauses) == 4
        assert [math.ceil(math.log2(paused / 0.25)) for paused in pauses] == [0, 1, 2, 3]

    @pytest.mark.parametrize("failure", [DROP, BROKEN, Answer(502, "<html>"), Answer(504), IN_USE, BUSY])
    def test_all_attempts_of_a_submission_have_the_same_idempotency_key(
        self, client: Client, stub: StubApi, failure: Answer | None
    ) -> None:
        for _ in range(2):
            stub.answers = [failure, failure, Answer(202, QUEUED)]
            assert client.submit("Hi") == QUEUED
        keys = [request.headers["Idempotency-Key"] for request in stub.requests]
        assert [keys.count(key) for key in keys] == [3] * 6

    def test_a_given_idempotency_key_is_sent(self, client: Client, stub: StubApi) -> None:
        stub.answers = [Answer(202, QUEUED)]
        client.submit("Hi", key="mine")
        assert stub.requests[0].headers["Idempotency-Key"] == "mine"

    @pytest.mark.parametrize("status", [400, 403, 404, 409, 413, 422])
    def test_a_refused_request_is_not_retried(self, client: Client, stub: StubApi, status: int) -> None:
        stub.answers = [Answer(status)]
        with pytest.raises(ProblemError):
            client.submit("Hi")
        assert len(stub.requests) == 1

    def test_a_deletion_whose_response_was_lost_has_succeeded(self, client: Client, stub: StubApi) -> None:
        stub.answers = [DROP, NOT_FOUND]
        client.delete(7)

    def test_deleting_a_missing_prompt_is_an_error(self, client: Client, stub: StubApi) -> None:
        stub.answers = [NOT_FOUND]
        with pytest.raises(ProblemError):
            client.delete(7)

    @pytest.mark.parametrize("action", ["cancel", "retry"])
    def test_a_change_whose_response_was_lost_has_succeeded(self, client: Client, stub: StubApi, action: str) -> None:
        stub.answers = [DROP, CONFLICT, Answer(200, QUEUED)]
        assert getattr(client, action)(7) == QUEUED
        assert [request.path for request in stub.requests] == [f"/prompts/7/{action}/"] * 2 + ["/prompts/7/"]

    @pytest.mark.parametrize("action", ["cancel", "retry"])
    def test_a_refused_change_is_an_error(self, client: Client, stub: StubApi, action: str) -> None:
        stub.answers = [CONFLICT]
        with pytest.raises(ProblemError):
            getattr(client, action)(7)

    @pytest.mark.parametrize("failure", [DROP, BROKEN])
    def test_a_registration_that_may_have_succeeded_is_not_retried(
        self, client: Client, stub: StubApi, failure: Answer | None
    ) -> None:
        stub.answers = [failure]
        with pytest.raises((UnreachableError, ProblemError)):
            client.register("alice", "secret")
        assert len(stub.requests) == 1

    def test_a_server_that_does_not_wait_is_polled_once_a_second(
        self, client: Client, stub: StubApi, pauses: list[float]
    ) -> None:
        completed = {"id": 7, "status": "completed"}
        stub.answers = [Answer(200, QUEUED), Answer(200, QUEUED), Answer(200, completed)]
        assert client.wait(7) == completed
        assert {request.headers["Prefer"] for request in stub.requests} == {"wait=60"}
        assert len(pauses) == 2
        assert max(pauses) <= 1


class RefreshedElsewhere(MemoryTokenStore):
    """A store whose login another thread refreshes just before the lock is acquired."""

    def locked(self) -> AbstractContextManager[object]:
        self.write(Login("alice", "access-2", "refresh-2"))
        return super().locked()


class TestLogins:
    def test_an_expired_access_token_is_refreshed(self, client: Client, stub: StubApi) -> None:
        stub.answers = [UNAUTHORIZED, Answer(200, {"access": "access-2", "refresh": "refresh-2"}), Answer(200, QUEUED)]
        assert client.show(7) == QUEUED
        assert stub.requests[1].body == {"refresh": "refresh-1"}
        assert stub.requests[2].headers["Authorization"] == "Bearer access-2"

    def test_a_login_that_another_thread_refreshed_is_used(self, stub: StubApi) -> None:
        token_store = RefreshedElsewhere()
        token_store.write(ALICE)
        stub.answers = [UNAUTHORIZED, Answer(200, QUEUED)]
        with Client(stub.url, token_store=token_store) as client:
            assert client.show(7) == QUEUED
        assert [request.headers["Authorization"] for request in stub.requests] == ["Bearer access-1", "Bearer access-2"]

    @pytest.mark.parametrize("failure", [DROP, BROKEN])
    def test_a_refresh_token_that_may_have_been_used_is_not_sent_again(
        self, client: Client, stub: StubApi, failure: Answer | None
    ) -> None:
        stub.answers = [UNAUTHORIZED, failure]
        with pytest.raises((UnreachableError, ProblemError)):
            client.show(7)
        assert len(stub.requests) == 2

    def test_a_refused_refresh_token_ends_the_login(self, client: Client, stub: StubApi) -> None:
        stub.answers = [UNAUTHORIZED]
        for _ in range(2):
            with pytest.raises(NotLoggedInError):
                client.show(7)
        assert len(stub.requests) == 2

    def test_a_login_file_is_readable_only_by_its_owner(self, tmp_path: Path) -> None:
        token_store = FileTokenStore(tmp_path / "state" / "login.json")
        assert token_store.read() is None
        for login in (ALICE, Login("alice", "access-2", "refresh-2")):
            with token_store.locked():
                token_store.write(login)
            assert token_store.read() == login
            assert token_store.path.stat().st_mode & 0o777 == 0o600
            assert token_store.path.parent.stat().st_mode & 0o777 == 0o700
        assert {path.name for path in token_store.path.parent.iterdir()} == {"login.json", "login.lock"}
        token_store.write(None)
        assert token_store.read() is None

    @pytest.mark.parametrize("content", ["", "[]", '{"username": "alice"}', "\xff"])
    def test_a_damaged_login_file_counts_as_logged_out(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "login.json").write_text(content, encoding="latin-1")
        assert FileTokenStore(tmp_path / "login.json").read() is None

    def test_each_server_has_its_own_login_file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        paths = {
            FileTokenStore.for_server(url).path for url in ("http://a", "https://a", "http://a:8000", "http://a/b")
        }
        assert len(paths) == 4
        assert {path.parent for path in paths} == {tmp_path / "promptwire"}


class TestRequestsAndResponses:
    def test_only_the_given_options_are_sent(self, client: Client, stub: StubApi) -> None:
        stub.answers = [Answer(202, QUEUED)] * 3
        client.submit("Hi")
        client.submit("Hi", history=0, cache=True)
        client.submit("Hi", cache=False)
        plain = {"prompt_text": "Hi", "websocket": True}
        assert [request.body for request in stub.requests] == [plain, plain | {"history": 0, "cache": True}, plain]
        assert [request.headers.get("Cache-Control") for request in stub.requests] == [None, None, "no-cache"]

    @pytest.mark.parametrize("content", [{}, [1], None, "text", [[]], {"id": 1}])
    def test_json_of_another_shape_is_not_taken_for_promptwires(
        self, client: Client, stub: StubApi, content: object
    ) -> None:
        stub.answers = [Answer(200, content)] * 2
        with pytest.raises(UnreachableError, match="not Promptwire's API"):
            client.show(1)
        with pytest.raises(UnreachableError, match="not Promptwire's API"):
            list(client.prompts())

    def test_pages_are_fetched_on_demand_and_only_from_this_server(self, client: Client, stub: StubApi) -> None:
        next_link = {"Link": '<http://elsewhere.example/prompts/?limit=2&cursor=x>; rel="next"'}
        stub.answers = [Answer(200, [QUEUED] * 2, next_link), Answer(200, [QUEUED], next_link)]
        assert len(list(client.prompts(limit=3, status="queued"))) == 3
        assert [request.path for request in stub.requests] == [
            "/prompts/?status=queued&limit=3",
            "/prompts/?limit=1&cursor=x",
        ]

    def test_search_results_are_those_of_all_pages(self, client: Client, stub: StubApi) -> None:
        next_link = {"Link": '</prompts/similar/?prompt=a+b&limit=3&cursor=x>; rel="next"'}
        stub.answers = [Answer(200, [QUEUED] * 2, next_link), Answer(200, [QUEUED])]
        assert len(client.similar("a b", limit=3)) == 3
        assert [request.path for request in stub.requests] == [
            "/prompts/similar/?prompt=a+b&limit=3",
            "/prompts/similar/?prompt=a+b&limit=3&cursor=x",
        ]

    def test_a_search_has_a_mode_and_filters(self, client: Client, stub: StubApi) -> None:
        stub.answers = [Answer(200, [QUEUED])]
        since, until = "2026-10-01T00:00:00Z", "2026-10-02T00:00:00Z"
        client.similar("a", mode="hybrid", metadata={"team": "x y"}, model="default", since=since, until=until)
        assert httpx.URL(stub.requests[0].path).params == httpx.QueryParams(
            {
                "prompt": "a",
                "mode": "hybrid",
                "model": "default",
                "since": since,
                "until": until,
                "metadata[team]": "x y",
            }
        )

    def test_usage_is_asked_for_by_group_and_days(self, client: Client, stub: StubApi) -> None:
        report = {"by": "key", "rows": [], "total": {}, "budgets": []}
        stub.answers = [Answer(200, report)] * 2 + [Answer(200, [])]
        assert client.usage(by="key", since="2026-10-01", until="2026-10-31") == report
        client.usage()
        assert [request.path for request in stub.requests] == [
            "/usage/?by=key&since=2026-10-01&until=2026-10-31",
            "/usage/?by=day",
        ]
        with pytest.raises(UnreachableError, match="not Promptwire's API"):
            client.usage()

    def test_an_exceeded_budget_is_not_retried_until_the_next_month(self, client: Client, stub: StubApi) -> None:
        body = {"type": "urn:promptwire:problem/budget-exceeded", "detail": "The budget is used up."}
        stub.answers = [Answer(429, body, {"Retry-After": "864000"})]
        with pytest.raises(ProblemError, match="The budget is used up"):
            client.submit("Hi")

    def test_a_problem_has_all_members_of_the_response(self, client: Client, stub: StubApi) -> None:
        errors = [{"field": "prompt_text", "message": "must not be blank"}]
        body = {"type": "urn:x", "title": "Bad Request", "detail": "The request is not valid.", "errors": errors}
        stub.answers = [Answer(400, body)]
        with pytest.raises(ProblemError) as refused:
            client.submit(" ")
        problem = refused.value
        assert (problem.type, problem.title, problem.status, problem.detail) == (
            "urn:x",
            "Bad Request",
            400,
            "The request is not valid.",
        )
        assert [(each.field, each.message) for each in problem.errors] == [("prompt_text", "must not be blank")]
        assert str(problem) == "The request is not valid. prompt_text must not be blank."

    @pytest.mark.parametrize("body", ["<html>", "[]", '{"errors": [1]}', ""])
    def test_an_error_response_without_a_problem_becomes_a_problem(
        self, client: Client, stub: StubApi, body: str
    ) -> None:
        stub.answers = [Answer(418, body)]
        with pytest.raises(ProblemError, match=re.escape("The server answered 418 (I'm a Teapot).")):
            client.show(7)

    def test_a_response_that_is_not_json_is_not_taken_for_promptwires(self, client: Client, stub: StubApi) -> None:
        stub.answers = [Answer(200, "<html>")]
        with pytest.raises(UnreachableError, match="is not Promptwire's API"):
            client.show(7)


class TestListening:
    def test_an_event_that_is_sent_twice_is_yielded_once(self, pauses: list[float]) -> None:
        paths: list[str] = []

        def room(socket: ServerConnection) -> None:
            paths.append(socket.request.path)
            first = 3 * len(paths) - 2
            for message in (
                {"type": "connected", "seq": 0},
                *({"type": "x", "seq": first + i} for i in (0, 0, 1, 2, 1)),
            ):
                socket.send(json.dumps(message))
            socket.close(1012)

        token_store = MemoryTokenStore()
        token_store.write(ALICE)
        with (
            room_server(room) as url,
            Client(url, token_store=token_store, pause=pauses.append) as client,
            closing(client.listen()) as events,
        ):
            assert [next(events)["seq"] for _ in range(9)] == list(range(1, 10))
        assert paths == ["/ws/prompts/alice/", "/ws/prompts/alice/?since=3", "/ws/prompts/alice/?since=6"]
        assert len(pauses) == 2


def stream(*deltas: str, end: str = "", **answer: object) -> Answer:
    """A stream of the first attempt's deltas, each one letter ("a" at offset 0, "b" at 1 …), and a final event."""
    events = ["retry: 3000\n\n:\n\n"]
    for text in deltas:
        offset = ord(text) - ord("a")
        data = json.dumps({"type": "prompt.delta", "id": 7, "attempt": 1, "offset": offset, "text": text})
        events.append(f"id: 1-{offset + 1}\nevent: prompt.delta\ndata: {data}\n\n")
    if end:
        events.append(f'id: 1-end\nevent: {end}\ndata: {{"type": "{end}", "id": 7}}\n\n')
    return Answer(200, "".join(events), {"Content-Type": "text/event-stream; charset=utf-8"}, **answer)


def cut(answer: Answer, more: str = "") -> Answer:
    """The same stream, interrupted in the middle of an event."""
    return replace(answer, body=f"{answer.body}{more}", headers=answer.headers | {"Content-Length": "9999"})


def summary(events: Iterable[Event]) -> str:
    """The text of the deltas and the type of the final event."""
    return " ".join(event.get("text") or event["type"] for event in events)


class TestFollowing:
    def test_an_interrupted_stream_is_resumed_at_the_same_place(
        self, client: Client, stub: StubApi, pauses: list[float]
    ) -> None:
        half = 'id: 1-3\nevent: prompt.delta\ndata: {"type": "prompt.de'
        stub.answers = [cut(stream("a", "b"), half), DROP, stream("c"), stream(), stream("d", end="prompt.failed")]
        assert summary(client.follow(7)) == "a b c d prompt.failed"
        assert {request.path for request in stub.requests} == {"/prompts/7/stream/"}
        last_event_ids = [request.headers.get("Last-Event-ID") for request in stub.requests]
        assert last_event_ids == [None, "1-2", "1-2", "1-3", "1-3"]
        after_cut, after_drop, *after_end = pauses
        assert after_drop < 1  # nothing named a time
        assert all(3 <= paused < 4 for paused in (after_cut, *after_end))

    def test_a_silent_connection_is_replaced(self, stub: StubApi) -> None:
        token_store = MemoryTokenStore()
        token_store.write(ALICE)
        stub.answers = [replace(cut(stream("a")), then_silent=True), stream("b", end="prompt.completed")]
        http = HttpClient(stub.url, UNLIMITED, lambda _: None)
        with closing(http):
            events = follow(Session(http, token_store), 7, UNLIMITED, lambda _: None, stream_timeout=0.2)
            assert summary(events) == "a b prompt.completed"

    def test_a_token_that_expires_between_two_streams_is_refreshed(self, client: Client, stub: StubApi) -> None:
        pair = Answer(200, {"access": "access-2", "refresh": "refresh-2"})
        stub.answers = [stream("a"), UNAUTHORIZED, pair, stream("b", end="prompt.completed")]
        assert summary(client.follow(7)) == "a b prompt.completed"
        assert stub.requests[-1].headers["Authorization"] == "Bearer access-2"
        assert stub.requests[-1].headers["Last-Event-ID"] == "1-1"

    def test_streams_that_send_text_are_resumed_without_a_limit(self, client: Client, stub: StubApi) -> None:
        without_retry = replace(stream(), body=str(stream("a").body).partition("\n\n")[2])
        stub.answers = [*[without_retry] * 10, stream("b", end="prompt.completed")]
        assert summary(client.follow(7)) == f"{'a ' * 10}b prompt.completed"

    def test_empty_streams_are_resumed_within_the_retry_limit(
        self, client: Client, stub: StubApi, pauses: list[float]
    ) -> None:
        stub.answers = [stream("a"), replace(stream(), body="")]
        with pytest.raises(UnreachableError, match="prompt 7 was interrupted"):
            list(client.follow(7))
        assert len(pauses) == 1 + 4

    def test_the_prompt_may_come_from_a_function(self, client: Client, stub: StubApi) -> None:
        stub.answers = [Answer(202, QUEUED), stream("a", end="prompt.deleted")]
        assert summary(client.follow(lambda: client.submit("Hi"))) == "a prompt.deleted"

    def test_a_204_response_ends_the_stream(self, client: Client, stub: StubApi) -> None:
        stub.answers = [stream("a"), Answer(204, "")]
        assert summary(client.follow(7)) == "a"

    def test_a_refused_stream_is_not_retried(self, client: Client, stub: StubApi) -> None:
        stub.answers = [Answer(404, {"detail": "There is no prompt 7."})]
        with pytest.raises(ProblemError, match=r"There is no prompt 7\."):
            list(client.follow(7))
        assert len(stub.requests) == 1

    @pytest.mark.parametrize(
        "answer", [Answer(200, "<html>"), replace(stream(), body="event: prompt.delta\ndata: hello\n\n")]
    )
    def test_a_response_of_another_service_is_an_error(self, client: Client, stub: StubApi, answer: Answer) -> None:
        stub.answers = [answer]
        with pytest.raises(UnreachableError, match="is not Promptwire's API"):
            list(client.follow(7))


class TestOutput:
    def test_table_columns_are_aligned_in_terminal_cells(self) -> None:
        assert table([("ID", "TEXT", "X"), ("1", "日本", "abc"), ("12", "a", "abcdefghijkl")], 20) == [
            "ID  TEXT  X",
            "1   日本  abc",
            "12  a     abcdefghi…",
        ]

    def test_a_table_without_a_width_is_not_cut_off(self) -> None:
        assert table([("ID", "X"), ("1", "a" * 500)], None)[1] == f"1   {'a' * 500}"

    def test_a_wide_character_is_not_cut_in_two(self) -> None:
        assert shorten("日本日本", 6) == "日本…"

    def test_control_characters_are_replaced(self) -> None:
        assert printable("a\x1b[2Jb\x9b1mc\r\td\ne") == "a�[2Jb�1mc�\td\ne"


class TestApiKeys:
    KEY = "pw_0123abcXYZ"
    REFUSED = Answer(401, {"detail": "The API key is wrong, revoked or expired."})

    def test_requests_carry_the_key_and_not_the_stored_login(self, stub: StubApi) -> None:
        token_store = MemoryTokenStore()
        token_store.write(ALICE)
        stub.answers = [Answer(202, QUEUED)]
        with Client(stub.url, api_key=self.KEY, token_store=token_store) as client:
            client.submit("Hi")
        assert [request.headers["Authorization"] for request in stub.requests] == [f"Bearer {self.KEY}"]

    def test_a_refused_key_is_not_renewed(self, stub: StubApi) -> None:
        token_store = MemoryTokenStore()
        token_store.write(ALICE)
        stub.answers = [self.REFUSED]
        refused = pytest.raises(NotLoggedInError, match="wrong, revoked or expired")
        with Client(stub.url, api_key=self.KEY, token_store=token_store) as client, refused:
            client.show(7)
        assert [request.path for request in stub.requests] == ["/prompts/7/"]
        assert token_store.read() == ALICE

    def test_the_user_of_a_key_is_asked_for_once(self, stub: StubApi) -> None:
        stub.answers = [Answer(200, {"id": 1, "username": "alice"})]
        with Client(stub.url, api_key=self.KEY) as client:
            assert [client.username, client.username] == ["alice"] * 2
        assert [request.path for request in stub.requests] == ["/account/"]

    def test_a_logout_ends_the_stored_login_and_not_the_key(self, stub: StubApi) -> None:
        token_store = MemoryTokenStore()
        token_store.write(ALICE)
        with Client(stub.url, api_key=self.KEY, token_store=token_store) as client:
            assert client.logout() == "alice"
        assert [(request.path, request.body) for request in stub.requests] == [
            ("/auth/logout/", {"refresh": "refresh-1"})
        ]

    @pytest.mark.parametrize("wrong", ["", "secret", "pw_", "pw_a b", "pw_é", "pw_a\n"])
    def test_a_text_that_is_not_an_api_key_is_refused_before_it_is_sent(self, stub: StubApi, wrong: str) -> None:
        with pytest.raises(ValueError, match="pw_"):
            Client(stub.url, api_key=wrong)

    def test_a_key_that_is_created_is_sent_once(self, stub: StubApi) -> None:
        stub.answers = [BROKEN, Answer(201, {"id": 1, "key": self.KEY})]
        with Client(stub.url, api_key=self.KEY, pause=lambda _: None) as client, pytest.raises(ProblemError):
            client.keys.create("k")
        assert len(stub.requests) == 1

    def test_a_key_whose_revocation_was_answered_after_a_retry_is_revoked(self, stub: StubApi) -> None:
        stub.answers = [DROP, NOT_FOUND]
        with Client(stub.url, api_key=self.KEY, pause=lambda _: None) as client:
            client.keys.revoke(3)
        assert [(request.method, request.path) for request in stub.requests] == [("DELETE", "/auth/keys/3/")] * 2

    def test_the_command_line_says_that_the_variable_is_not_an_api_key(self) -> None:
        result = CliRunner().invoke(main, ["list"], env={"PROMPTWIRE_API_KEY": "secret"})
        assert result.exit_code == Exit.USAGE
        assert "PROMPTWIRE_API_KEY is not valid: an API key is pw_" in result.output
        assert "secret" not in result.output


class TestRequests:
    """What prompts ask for besides their text, and filters of lists."""

    def test_submit_sends_what_is_given_and_leaves_out_none(self, client: Client, stub: StubApi) -> None:
        stub.answers = [Answer(202, QUEUED)]
        client.submit("Hi", model="small", metadata={"k": "v"}, temperature=0, instructions=None)
        assert stub.requests[0].body == {
            "prompt_text": "Hi", "websocket": True, "model": "small", "metadata": {"k": "v"}, "temperature": 0,
        }  # fmt: skip

    def test_a_list_sends_its_filters_and_follows_links_that_keep_them(self, client: Client, stub: StubApi) -> None:
        following = "/prompts/?limit=1&cursor=x&metadata%5Ba+b%5D=1%262&model=small"
        stub.answers = [Answer(200, [QUEUED], {"Link": f'<{following}>; rel="next"'}), Answer(200, [])]
        since = "2026-11-30T00:00:00+01:00"
        assert list(client.prompts(metadata={"a b": "1&2"}, model="small", since=since)) == [QUEUED]
        first, second = (parse_qs(urlsplit(request.path).query) for request in stub.requests)
        assert first == {"metadata[a b]": ["1&2"], "model": ["small"], "since": [since], "limit": ["100"]}
        assert (second["metadata[a b]"], second["model"]) == (["1&2"], ["small"])

    def run(self, stub: StubApi, *arguments: str) -> Result:
        environment = {"PROMPTWIRE_API_KEY": f"pw_{'a' * 43}", "PROMPTWIRE_URL": stub.url}
        return CliRunner().invoke(main, arguments, env=environment)

    def test_the_command_line_submits_a_request(self, stub: StubApi, tmp_path: Path) -> None:
        stub.answers = [Answer(202, QUEUED)]
        file = tmp_path / "my tides.json"
        file.write_text('{"type": "object"}')
        result = self.run(
            stub, "submit", "Hi", "--model", "small", "--instructions", "Rhyme.", "--temperature", "0.5",
            "--metadata", "a=1=2", "--metadata", "b=", "--max-output-tokens", "9", "--json-schema", str(file),
        )  # fmt: skip
        assert result.exit_code == Exit.OK, result.output
        schema = {"name": "mytides", "schema": {"type": "object"}, "strict": True}
        assert stub.requests[0].body == {
            "prompt_text": "Hi", "websocket": True, "model": "small", "instructions": "Rhyme.", "temperature": 0.5,
            "metadata": {"a": "1=2", "b": ""}, "max_output_tokens": 9,
            "response_format": {"type": "json_schema", "json_schema": schema},
        }  # fmt: skip

    def test_the_command_line_filters_a_list(self, stub: StubApi) -> None:
        stub.answers = [Answer(200, [])]
        result = self.run(stub, "list", "--metadata", "a=1", "--model", "small", "--until", "2026-11-30T00:00:00Z")
        assert result.exit_code == Exit.OK, result.output
        assert parse_qs(urlsplit(stub.requests[0].path).query) == {
            "metadata[a]": ["1"], "model": ["small"], "until": ["2026-11-30T00:00:00Z"], "limit": ["20"],
        }  # fmt: skip

    @pytest.mark.parametrize("arguments", [["--metadata", "a"], ["--json-schema", str(ROOT / "README.md")]])
    def test_the_command_line_refuses_malformed_options(self, stub: StubApi, arguments: list[str]) -> None:
        assert self.run(stub, "submit", "Hi", *arguments).exit_code == Exit.USAGE
        assert stub.requests == []


class TestIndependence:
    def test_a_copy_of_the_folder_works_elsewhere(self, tmp_path: Path) -> None:
        shutil.copytree(ROOT / "api" / "client", tmp_path / "vendored")
        command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r});"]
        command[-1] += "from vendored.__main__ import run; sys.argv[1:] = ['--help']; code = run();"
        command[-1] += f"assert not [name for name in sys.modules if name.partition('.')[0] in {['api', 'shared']}]"
        assert (
            "Promptwire"
            in subprocess.run(
                command, capture_output=True, text=True, check=True, cwd=tmp_path, timeout=MAX_WAIT_SECONDS
            ).stdout
        )

    def test_the_client_does_not_import_flask(self) -> None:
        code = "import sys, api.client.__main__; sys.exit('flask' in sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=MAX_WAIT_SECONDS)


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield all commands with their names, such as `keys create`."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} ")
        else:
            yield prefix + name, command


class TestDocumentation:
    guide = (ROOT / "docs" / "client.md").read_text()

    def test_the_guide_lists_every_command_with_its_options(self) -> None:
        rows = dict(re.findall(r"^\| `([a-z]+(?: [a-z]+)*)[^`]*` \| (.*) \|$", self.guide, re.MULTILINE))
        found = dict(commands(main))
        assert rows.keys() == found.keys()
        everywhere = {option for parameter in main.params for option in parameter.opts}
        for name, command in found.items():
            options = {o for p in command.params for o in p.opts + p.secondary_opts if o.startswith("-")} - everywhere
            if name != "register":  # has the options of login
                assert options == set(re.findall(r"--[a-z-]+", rows[name])), name

    def test_the_guide_lists_every_exit_code(self) -> None:
        assert set(re.findall(r"^\| `(\d+)` \|", self.guide, re.MULTILINE)) == {str(int(code)) for code in Exit}
