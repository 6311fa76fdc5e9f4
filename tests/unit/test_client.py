"""The client's smaller parts: what is tried again and when, where a login is kept, what is shown."""

import json
import math
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from websockets.sync.server import ServerConnection, serve

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
from api.client.http import Transport
from api.client.options import Exit
from api.client.output import printable, shortened, table
from api.client.retries import FOREVER
from api.client.session import Session
from api.client.text_stream import follow
from tests.support.servers import ROOT
from tests.support.stub_api import DROP, Answer, StubApi, stub_api

ALICE = Login("alice", "access-1", "refresh-1")
QUEUED = {"id": 7, "status": "queued"}
BUSY = Answer(429, {"detail": "Too many requests."}, {"Retry-After": "7"})
BROKEN = Answer(500, {"detail": "Something went wrong on our side."})
IN_USE = Answer(409, {"type": "urn:promptwire:problem:idempotency-key-in-use"})
UNAUTHORIZED = Answer(401, {"detail": "The token is malformed or has expired."})
NOT_FOUND, CONFLICT = Answer(404), Answer(409)


@pytest.fixture
def stub() -> Iterator[StubApi]:
    with stub_api() as running:
        yield running


@pytest.fixture
def pauses() -> list[float]:
    """How long the client has waited, which it does in no time."""
    return []


@pytest.fixture
def client(stub: StubApi, pauses: list[float]) -> Iterator[Client]:
    token_store = MemoryTokenStore()
    token_store.write(ALICE)
    with Client(stub.url, token_store=token_store, timeout=60, retries=4, pause=pauses.append) as made:
        yield made


class TestTryingAgain:
    @pytest.mark.parametrize("status", [429, 503])
    def test_the_server_says_when(self, client: Client, stub: StubApi, pauses: list[float], status: int) -> None:
        stub.answers = [Answer(status, {}, {"Retry-After": "7"}), Answer(202, QUEUED)]
        assert client.submit("Hi") == QUEUED
        (paused,) = pauses
        assert 7 <= paused < 8

    def test_it_may_say_it_as_a_date(self, client: Client, stub: StubApi, pauses: list[float]) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
        stub.answers = [Answer(503, {}, {"Retry-After": date}), Answer(202, QUEUED)]
        client.submit("Hi")
        assert 0 < pauses[0] < 41

    def test_what_the_server_has_named_does_not_count(self, client: Client, stub: StubApi) -> None:
        stub.answers = [*[BUSY] * 10, Answer(202, QUEUED)]
        assert client.submit("Hi") == QUEUED

    def test_a_time_beyond_the_timeout_is_not_waited_for(
        self, client: Client, stub: StubApi, pauses: list[float]
    ) -> None:
        stub.answers = [Answer(429, {"detail": "Too many requests."}, {"Retry-After": "61"})]
        with pytest.raises(ProblemError, match="Too many requests") as refused:
            client.submit("Hi")
        assert (refused.value.status, pauses) == (429, [])

    def test_else_pauses_double_with_jitter_and_are_numbered(
        self, client: Client, stub: StubApi, pauses: list[float]
    ) -> None:
        stub.answers = [DROP]
        with pytest.raises(UnreachableError, match=re.escape(stub.url)):
            client.show(7)
        assert len(pauses) == 4
        assert [math.ceil(math.log2(paused / 0.25)) for paused in pauses] == [0, 1, 2, 3]

    @pytest.mark.parametrize("failure", [DROP, BROKEN, Answer(502, "<html>"), Answer(504), IN_USE, BUSY])
    def test_a_submission_bears_one_key_however_often_it_is_tried(
        self, client: Client, stub: StubApi, failure: Answer | None
    ) -> None:
        for _ in range(2):
            stub.answers = [failure, failure, Answer(202, QUEUED)]
            assert client.submit("Hi") == QUEUED
        keys = [request.headers["Idempotency-Key"] for request in stub.requests]
        assert [keys.count(key) for key in keys] == [3] * 6

    def test_a_key_of_ones_own(self, client: Client, stub: StubApi) -> None:
        stub.answers = [Answer(202, QUEUED)]
        client.submit("Hi", key="mine")
        assert stub.requests[0].headers["Idempotency-Key"] == "mine"

    @pytest.mark.parametrize("status", [400, 403, 404, 409, 413, 422])
    def test_a_refusal_is_not_tried_again(self, client: Client, stub: StubApi, status: int) -> None:
        stub.answers = [Answer(status)]
        with pytest.raises(ProblemError):
            client.submit("Hi")
        assert len(stub.requests) == 1

    def test_a_deletion_whose_answer_was_lost_has_deleted(self, client: Client, stub: StubApi) -> None:
        stub.answers = [DROP, NOT_FOUND]
        client.delete(7)

    def test_there_was_nothing_to_delete(self, client: Client, stub: StubApi) -> None:
        stub.answers = [NOT_FOUND]
        with pytest.raises(ProblemError):
            client.delete(7)

    @pytest.mark.parametrize("how", ["cancel", "retry"])
    def test_a_change_whose_answer_was_lost_is_made(self, client: Client, stub: StubApi, how: str) -> None:
        stub.answers = [DROP, CONFLICT, Answer(200, QUEUED)]
        assert getattr(client, how)(7) == QUEUED
        assert [request.path for request in stub.requests] == [f"/prompts/7/{how}/"] * 2 + ["/prompts/7/"]

    @pytest.mark.parametrize("how", ["cancel", "retry"])
    def test_a_change_that_is_refused_is_not_made(self, client: Client, stub: StubApi, how: str) -> None:
        stub.answers = [CONFLICT]
        with pytest.raises(ProblemError):
            getattr(client, how)(7)

    @pytest.mark.parametrize("failure", [DROP, BROKEN])
    def test_a_registration_that_may_be_made_is_not_made_again(
        self, client: Client, stub: StubApi, failure: Answer | None
    ) -> None:
        stub.answers = [failure]
        with pytest.raises((UnreachableError, ProblemError)):
            client.register("alice", "secret")
        assert len(stub.requests) == 1

    def test_a_server_that_does_not_wait_is_asked_once_a_second(
        self, client: Client, stub: StubApi, pauses: list[float]
    ) -> None:
        ended = {"id": 7, "status": "completed"}
        stub.answers = [Answer(200, QUEUED), Answer(200, QUEUED), Answer(200, ended)]
        assert client.wait(7) == ended
        assert {request.headers["Prefer"] for request in stub.requests} == {"wait=60"}
        assert len(pauses) == 2
        assert max(pauses) <= 1


class Overtaken(MemoryTokenStore):
    """Whoever waits for the lock finds that another has renewed the login meanwhile."""

    def locked(self) -> AbstractContextManager[object]:
        self.write(Login("alice", "access-2", "refresh-2"))
        return super().locked()


class TestLogins:
    def test_a_new_pair_is_taken_where_the_token_has_expired(self, client: Client, stub: StubApi) -> None:
        stub.answers = [UNAUTHORIZED, Answer(200, {"access": "access-2", "refresh": "refresh-2"}), Answer(200, QUEUED)]
        assert client.show(7) == QUEUED
        assert stub.requests[1].body == {"refresh": "refresh-1"}
        assert stub.requests[2].headers["Authorization"] == "Bearer access-2"

    def test_one_that_somebody_else_has_renewed_is_taken(self, stub: StubApi) -> None:
        token_store = Overtaken()
        token_store.write(ALICE)
        stub.answers = [UNAUTHORIZED, Answer(200, QUEUED)]
        with Client(stub.url, token_store=token_store) as client:
            assert client.show(7) == QUEUED
        assert [request.headers["Authorization"] for request in stub.requests] == ["Bearer access-1", "Bearer access-2"]

    @pytest.mark.parametrize("failure", [DROP, BROKEN])
    def test_a_refresh_token_that_may_be_spent_is_not_spent_again(
        self, client: Client, stub: StubApi, failure: Answer | None
    ) -> None:
        stub.answers = [UNAUTHORIZED, failure]
        with pytest.raises((UnreachableError, ProblemError)):
            client.show(7)
        assert len(stub.requests) == 2

    def test_one_that_is_refused_ends_the_login(self, client: Client, stub: StubApi) -> None:
        stub.answers = [UNAUTHORIZED]
        for _ in range(2):
            with pytest.raises(NotLoggedInError):
                client.show(7)
        assert len(stub.requests) == 2

    def test_a_file_is_for_its_owner_only(self, tmp_path: Path) -> None:
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
    def test_a_damaged_file_is_no_login(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "login.json").write_text(content, encoding="latin-1")
        assert FileTokenStore(tmp_path / "login.json").read() is None

    def test_each_server_has_its_own(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        paths = {FileTokenStore.of(url).path for url in ("http://a", "https://a", "http://a:8000", "http://a/b")}
        assert len(paths) == 4
        assert {path.parent for path in paths} == {tmp_path / "promptwire"}


class TestWhatIsSentAndRead:
    def test_only_what_is_given_is_sent(self, client: Client, stub: StubApi) -> None:
        stub.answers = [Answer(202, QUEUED)] * 3
        client.submit("Hi")
        client.submit("Hi", history=0, cache=True)
        client.submit("Hi", cache=False)
        plain = {"prompt_text": "Hi", "websocket": True}
        assert [request.body for request in stub.requests] == [plain, plain | {"history": 0, "cache": True}, plain]
        assert [request.headers.get("Cache-Control") for request in stub.requests] == [None, None, "no-cache"]

    @pytest.mark.parametrize("nonsense", [{}, [1], None, "text", [[]], {"id": 1}])
    def test_what_is_no_answer_of_ours_is_taken_for_none(self, client: Client, stub: StubApi, nonsense: object) -> None:
        stub.answers = [Answer(200, nonsense)] * 2
        with pytest.raises(UnreachableError, match="not Promptwire's API"):
            client.show(1)
        with pytest.raises(UnreachableError, match="not Promptwire's API"):
            list(client.prompts())

    def test_pages_are_read_as_they_are_needed_and_from_this_server_only(self, client: Client, stub: StubApi) -> None:
        following = {"Link": '<http://elsewhere.example/prompts/?limit=2&cursor=x>; rel="next"'}
        stub.answers = [Answer(200, [QUEUED] * 2, following), Answer(200, [QUEUED], following)]
        assert len(list(client.prompts(limit=3, status="queued"))) == 3
        assert [request.path for request in stub.requests] == [
            "/prompts/?status=queued&limit=3",
            "/prompts/?limit=1&cursor=x",
        ]

    def test_a_problem_has_all_its_members(self, client: Client, stub: StubApi) -> None:
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
        assert str(problem) == "The request is not valid. prompt_text: must not be blank."

    @pytest.mark.parametrize("body", ["<html>", "[]", '{"errors": [1]}', ""])
    def test_an_error_of_something_else_is_a_problem_too(self, client: Client, stub: StubApi, body: str) -> None:
        stub.answers = [Answer(418, body)]
        with pytest.raises(ProblemError, match=re.escape("The server answered 418 (I'm a Teapot).")):
            client.show(7)

    def test_an_answer_of_something_else_is_said_to_be(self, client: Client, stub: StubApi) -> None:
        stub.answers = [Answer(200, "<html>")]
        with pytest.raises(UnreachableError, match="is not Promptwire's API"):
            client.show(7)


class TestListening:
    def test_an_event_that_is_told_again_is_shown_once(self, pauses: list[float]) -> None:
        joined: list[str] = []

        def room(socket: ServerConnection) -> None:
            joined.append(socket.request.path)
            first = 3 * len(joined) - 2
            for message in (
                {"type": "connected", "seq": 0},
                *({"type": "x", "seq": first + i} for i in (0, 0, 1, 2, 1)),
            ):
                socket.send(json.dumps(message))
            socket.close(1012)

        token_store = MemoryTokenStore()
        token_store.write(ALICE)
        with serve(room, "127.0.0.1", 0) as server:
            serving = threading.Thread(target=server.serve_forever)
            serving.start()
            url = f"http://127.0.0.1:{server.socket.getsockname()[1]}"
            with (
                Client(url, token_store=token_store, pause=pauses.append) as client,
                closing(client.listen()) as events,
            ):
                assert [next(events)["seq"] for _ in range(9)] == list(range(1, 10))
            server.shutdown()
            serving.join()
        assert joined == ["/ws/prompts/alice/", "/ws/prompts/alice/?since=3", "/ws/prompts/alice/?since=6"]
        assert len(pauses) == 2


def stream(*deltas: str, end: str = "", **answer: object) -> Answer:
    """An answer with the first attempt's text in pieces, each a letter "a", "b" … at its offset, and perhaps an end."""
    events = ["retry: 3000\n\n:\n\n"]
    for text in deltas:
        offset = ord(text) - ord("a")
        data = json.dumps({"type": "prompt.delta", "id": 7, "attempt": 1, "offset": offset, "text": text})
        events.append(f"id: 1-{offset + 1}\nevent: prompt.delta\ndata: {data}\n\n")
    if end:
        events.append(f'id: 1-end\nevent: {end}\ndata: {{"type": "{end}", "id": 7}}\n\n')
    return Answer(200, "".join(events), {"Content-Type": "text/event-stream; charset=utf-8"}, **answer)


def cut(answer: Answer, more: str = "") -> Answer:
    """The same, broken off in the middle of something."""
    return replace(answer, body=f"{answer.body}{more}", headers=answer.headers | {"Content-Length": "9999"})


def told(events: Iterable[Event]) -> str:
    """The text, and how it ended."""
    return " ".join(event.get("text") or event["type"] for event in events)


class TestFollowing:
    def test_broken_off_it_is_taken_up_where_it_was(self, client: Client, stub: StubApi, pauses: list[float]) -> None:
        half = 'id: 1-3\nevent: prompt.delta\ndata: {"type": "prompt.de'
        stub.answers = [cut(stream("a", "b"), half), DROP, stream("c"), stream(), stream("d", end="prompt.failed")]
        assert told(client.follow(7)) == "a b c d prompt.failed"
        assert {request.path for request in stub.requests} == {"/prompts/7/stream/"}
        asked = [request.headers.get("Last-Event-ID") for request in stub.requests]
        assert asked == [None, "1-2", "1-2", "1-3", "1-3"]
        after_cut, after_drop, *after_end = pauses
        assert after_drop < 1  # nobody was there to say when
        assert all(3 <= paused < 4 for paused in (after_cut, *after_end))

    def test_a_connection_that_fell_silent_is_given_up(self, stub: StubApi) -> None:
        token_store = MemoryTokenStore()
        token_store.write(ALICE)
        stub.answers = [replace(cut(stream("a")), then_silent=True), stream("b", end="prompt.completed")]
        transport = Transport(stub.url, FOREVER, lambda _: None)
        with closing(transport):
            events = follow(Session(transport, token_store), 7, FOREVER, lambda _: None, silence=0.2)
            assert told(events) == "a b prompt.completed"

    def test_a_login_that_ends_meanwhile_is_renewed(self, client: Client, stub: StubApi) -> None:
        pair = Answer(200, {"access": "access-2", "refresh": "refresh-2"})
        stub.answers = [stream("a"), UNAUTHORIZED, pair, stream("b", end="prompt.completed")]
        assert told(client.follow(7)) == "a b prompt.completed"
        assert stub.requests[-1].headers["Authorization"] == "Bearer access-2"
        assert stub.requests[-1].headers["Last-Event-ID"] == "1-1"

    def test_streams_that_bring_something_are_taken_up_however_often(self, client: Client, stub: StubApi) -> None:
        without_retry = replace(stream(), body=str(stream("a").body).partition("\n\n")[2])
        stub.answers = [*[without_retry] * 10, stream("b", end="prompt.completed")]
        assert told(client.follow(7)) == f"{'a ' * 10}b prompt.completed"

    def test_others_are_numbered(self, client: Client, stub: StubApi, pauses: list[float]) -> None:
        stub.answers = [stream("a"), replace(stream(), body="")]
        with pytest.raises(UnreachableError, match="prompt 7 broke off"):
            list(client.follow(7))
        assert len(pauses) == 1 + 4

    def test_it_begins_with_what_gives_the_prompt(self, client: Client, stub: StubApi) -> None:
        stub.answers = [Answer(202, QUEUED), stream("a", end="prompt.deleted")]
        assert told(client.follow(lambda: client.submit("Hi"))) == "a prompt.deleted"

    def test_there_may_be_no_more(self, client: Client, stub: StubApi) -> None:
        stub.answers = [stream("a"), Answer(204, "")]
        assert told(client.follow(7)) == "a"

    def test_a_refusal_is_not_tried_again(self, client: Client, stub: StubApi) -> None:
        stub.answers = [Answer(404, {"detail": "There is no prompt 7."})]
        with pytest.raises(ProblemError, match=r"There is no prompt 7\."):
            list(client.follow(7))
        assert len(stub.requests) == 1

    @pytest.mark.parametrize(
        "answer", [Answer(200, "<html>"), replace(stream(), body="event: prompt.delta\ndata: hello\n\n")]
    )
    def test_an_answer_of_something_else_is_said_to_be(self, client: Client, stub: StubApi, answer: Answer) -> None:
        stub.answers = [answer]
        with pytest.raises(UnreachableError, match="is not Promptwire's API"):
            list(client.follow(7))


class TestOutput:
    def test_columns_are_aligned_in_cells(self) -> None:
        assert table([("ID", "TEXT", "X"), ("1", "日本", "abc"), ("12", "a", "abcdefghijkl")], 20) == [
            "ID  TEXT  X",
            "1   日本  abc",
            "12  a     abcdefghi…",
        ]

    def test_nothing_is_cut_off_where_there_is_no_terminal(self) -> None:
        assert table([("ID", "X"), ("1", "a" * 500)], None)[1] == f"1   {'a' * 500}"

    def test_a_wide_character_is_not_cut_in_two(self) -> None:
        assert shortened("日本日本", 6) == "日本…"

    def test_no_text_can_command_the_terminal(self) -> None:
        assert printable("a\x1b[2Jb\x9b1mc\r\td\ne") == "a�[2Jb�1mc�\td\ne"


class TestStandingAlone:
    def test_a_copy_elsewhere_works(self, tmp_path: Path) -> None:
        shutil.copytree(ROOT / "api" / "client", tmp_path / "vendored")
        command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r});"]
        command[-1] += "from vendored.__main__ import run; sys.argv[1:] = ['--help']; code = run();"
        command[-1] += f"assert not [name for name in sys.modules if name.partition('.')[0] in {['api', 'shared']}]"
        assert "Promptwire" in subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout

    def test_it_brings_no_flask(self) -> None:
        code = "import sys, api.client.__main__; sys.exit('flask' in sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


class TestDocumentation:
    guide = (ROOT / "docs" / "client.md").read_text()

    def test_the_guide_lists_every_command_with_its_options(self) -> None:
        rows = dict(re.findall(r"^\| `([a-z]+)[^`]*` \| (.*) \|$", self.guide, re.MULTILINE))
        assert rows.keys() == main.commands.keys()
        everywhere = {option for parameter in main.params for option in parameter.opts}
        for name, command in main.commands.items():
            options = {o for p in command.params for o in p.opts + p.secondary_opts if o.startswith("-")} - everywhere
            if name != "register":  # which is as login
                assert options == set(re.findall(r"--[a-z-]+", rows[name])), name

    def test_the_guide_lists_every_exit_code(self) -> None:
        assert set(re.findall(r"^\| `(\d+)` \|", self.guide, re.MULTILINE)) == {str(int(code)) for code in Exit}
