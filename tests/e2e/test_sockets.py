"""CONTRACT's section "WebSocket", row by row, against gunicorn with a WebSocket client."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from uuid import uuid4

import jwt
import pytest
from sqlalchemy import text
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from shared.accounts import users
from shared.db.engine import Sessions
from shared.messaging.redis import make_redis
from shared.providers import GenerationRequest
from shared.settings import Settings
from tests.support import lifecycle, processes
from tests.support.client import PASSWORD
from tests.support.processes import RemoteUser
from tests.support.providers import Script
from tests.support.servers import MAX_WAIT_SECONDS, SECRET, Servers, wait_until
from worker.deltas import FIRST_DELTA_SECONDS
from worker.pipeline import Pipeline


@pytest.fixture
def alice(url: str) -> RemoteUser:
    return RemoteUser(url)


def refusal(user: RemoteUser, **options) -> tuple[dict, int]:
    """The message that a refused socket gets, and its close code."""
    with user.join(**options) as refused:
        return refused.receive(), refused.close_code()


class TestWhoMayJoin:
    def test_with_a_token_in_the_header(self, alice: RemoteUser) -> None:
        with alice.join() as room:
            assert room.receive() == {
                "type": "connected",
                "message": f"Connected to WebSocket room '{alice.username}'.",
                "seq": 0,
            }

    def test_with_a_token_in_the_subprotocols_as_browsers_do(self, alice: RemoteUser) -> None:
        offered = ["bearer", alice.tokens["access"]]
        with alice.join(additional_headers={}, subprotocols=offered) as room:
            assert room.receive()["type"] == "connected"
            assert room.connection.subprotocol == "bearer"

    @pytest.mark.parametrize(
        "headers",
        [{}, {"Authorization": "Bearer x.y.z"}, {"Authorization": "Basic YTpi"}, {"Authorization": ""}],
    )
    def test_no_or_a_bad_token_is_4401(self, alice: RemoteUser, headers: dict) -> None:
        message, code = refusal(alice, additional_headers=headers)
        assert message.keys() == {"error"}
        assert code == 4401

    def test_a_refresh_token_is_4401(self, alice: RemoteUser) -> None:
        assert refusal(alice, additional_headers={"Authorization": f"Bearer {alice.tokens['refresh']}"})[1] == 4401

    def test_a_token_in_the_url_is_4401(self, alice: RemoteUser) -> None:
        path = f"/ws/prompts/{alice.username}/?token={alice.tokens['access']}"
        assert refusal(alice, path=path, additional_headers={})[1] == 4401

    def test_a_revoked_token_is_4401(self, alice: RemoteUser) -> None:
        alice.http.post("/auth/logout/", json={"refresh": alice.tokens["refresh"]})
        assert refusal(alice)[1] == 4401

    def test_an_api_key_joins_until_it_is_revoked_and_its_use_is_noted(self, alice: RemoteUser) -> None:
        made = alice.http.post("/auth/keys/", json={"name": "k"}).raise_for_status().json()

        def is_used() -> bool:
            (listed,) = alice.http.get("/auth/keys/").json()
            return listed["last_used_at"] is not None

        with alice.join(additional_headers={}, subprotocols=["bearer", made["key"]]) as room:
            assert room.receive()["type"] == "connected"
            wait_until(is_used, what="the note of the key's use")
            alice.http.delete(f"/auth/keys/{made['id']}/").raise_for_status()
            assert room.close_code() == 4401

    def test_another_users_room_is_4403_whether_it_exists_or_not(self, alice: RemoteUser, url: str) -> None:
        bob = RemoteUser(url)
        others = [refusal(alice, path=f"/ws/prompts/{name}/") for name in (bob.username, "nobody-at-all")]
        assert others[0] == others[1]
        assert others[0][1] == 4403
        assert others[0][0].keys() == {"error"}

    def test_a_browser_page_of_another_origin_is_403_at_the_handshake(self, alice: RemoteUser) -> None:
        with pytest.raises(InvalidStatus) as refused:
            alice.join(origin="https://evil.example")
        assert refused.value.response.status_code == 403
        assert refused.value.response.headers["Content-Type"] == "application/problem+json"

    def test_a_browser_page_of_this_host_may_join(self, alice: RemoteUser) -> None:
        with alice.join(origin=alice.url) as room:
            assert room.receive()["type"] == "connected"

    def test_without_a_username_it_is_4000(self, alice: RemoteUser) -> None:
        message = "Missing 'username' parameter. Use ws://host/ws/prompts/<username>/"
        for path in ("/ws/prompts/", "/ws/prompts"):
            assert refusal(alice, path=path) == ({"error": message}, 4000)

    @pytest.mark.parametrize("path", ["/ws/", "/ws", "/ws/other/", "/ws/prompts/a/b/", "/ws/prompt/alice/"])
    def test_any_other_path_is_4001(self, alice: RemoteUser, path: str) -> None:
        message, code = refusal(alice, path=path)
        assert message.keys() == {"error"}
        assert code == 4001

    def test_both_forms_of_the_path_work(self, alice: RemoteUser) -> None:
        with alice.join(path=f"/ws/prompts/{alice.username}") as room:
            assert room.receive()["type"] == "connected"

    def test_plain_http_is_426(self, alice: RemoteUser) -> None:
        response = alice.http.get(f"/ws/prompts/{alice.username}/")
        assert response.status_code == 426
        assert response.headers["Content-Type"] == "application/problem+json"

    def test_a_broken_handshake_is_400(self, alice: RemoteUser) -> None:
        headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
        assert alice.http.get(f"/ws/prompts/{alice.username}/", headers=headers).status_code == 400

    def test_is_closed_when_its_token_expires(self, alice: RemoteUser) -> None:
        claims = jwt.decode(alice.tokens["access"], SECRET, algorithms=["HS256"])
        short = jwt.encode(claims | {"exp": time.time() + 3}, SECRET)
        with alice.join(additional_headers={"Authorization": f"Bearer {short}"}) as room:
            assert room.receive()["type"] == "connected"
            assert room.receive().keys() == {"error"}
            assert room.close_code() == 4401

    def test_is_closed_when_its_login_ends_and_others_stay(self, alice: RemoteUser) -> None:
        body = {"username": alice.username, "password": PASSWORD}
        other = alice.http.post("/login/", json=body).json()
        headers = {"Authorization": f"Bearer {other['access']}"}
        with alice.join() as ended, alice.join(additional_headers=headers) as kept:
            for room in (ended, kept):
                room.receive()
            alice.http.post("/auth/logout/", json={"refresh": alice.tokens["refresh"]})
            assert ended.receive().keys() == {"error"}
            assert ended.close_code() == 4401
            assert kept.ask({"type": "ping"})["type"] == "pong"

    def test_is_closed_when_the_password_is_changed(self, alice: RemoteUser, settings: Settings) -> None:
        with alice.join() as room:
            room.receive()
            command = ["api.users_cli", "set-password", alice.username]
            with processes.process(command, settings, NEW_PASSWORD="another password"):
                assert room.receive().keys() == {"error"}
            assert room.close_code() == 4401

    @pytest.mark.parametrize("origin", ["http://[", "null", "", "https://evil.example:8000"])
    def test_odd_origins_are_403(self, alice: RemoteUser, origin: str) -> None:
        with pytest.raises(InvalidStatus) as refused:
            alice.join(additional_headers={"Origin": origin})
        assert refused.value.response.status_code == 403

    def test_an_odd_subprotocol_is_400(self, alice: RemoteUser) -> None:
        host, port = alice.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=MAX_WAIT_SECONDS) as raw:
            raw.sendall(
                f"GET /ws/prompts/{alice.username}/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                "Sec-WebSocket-Protocol: \xe9\xff\r\n\r\n".encode("latin-1")
            )
            assert raw.recv(1024).startswith(b"HTTP/1.1 400")


class TestOpenRooms:
    """`WS_ROOM_AUTH=open`: the original's open rooms, for development."""

    def test_a_client_without_a_token_may_join_any_room(
        self, alice: RemoteUser, settings: Settings, worker: Pipeline, servers: Servers
    ) -> None:
        with processes.api(servers.changed(settings, ws_room_auth="open")) as url:
            with connect(f"{url.replace('http', 'ws')}/ws/prompts/{alice.username}/") as room:
                assert json.loads(room.recv(timeout=MAX_WAIT_SECONDS))["type"] == "connected"
                alice.submit()
                worker.process(1)
                while (event := json.loads(room.recv(timeout=MAX_WAIT_SECONDS)))["type"] == "prompt.delta":
                    pass
                assert event["type"] == "prompt.completed"
            with connect(f"{url.replace('http', 'ws')}/ws/prompts/nobody-at-all/") as room:
                assert json.loads(room.recv(timeout=MAX_WAIT_SECONDS)).keys() == {"error"}


class TestEvents:
    def test_the_event_of_a_finished_prompt_has_its_answer(self, alice: RemoteUser, worker: Pipeline) -> None:
        with alice.join() as room:
            room.receive()
            prompt_id = alice.submit("Hello")
            worker.process(1)
            event = room.receive_ending()
        shown = alice.show(prompt_id)
        same = ("id", "user", "prompt_text", "response_text", "status", "created_at", "completed_at")
        assert {name: event[name] for name in same} == {name: shown[name] for name in same}
        assert (event["type"], event["seq"]) == ("prompt.completed", 1)
        assert event["timestamp"].endswith("Z")

    def test_deltas_make_up_the_answer(self, alice: RemoteUser, worker: Pipeline) -> None:
        with alice.join() as room:
            room.receive()
            prompt_id = alice.submit("Hello")
            slow = Script("an answer of several words", between_chunks=lambda: time.sleep(2 * FIRST_DELTA_SECONDS))
            dataclasses.replace(worker, generator=slow).process(1)
            deltas = []
            while (message := room.receive())["type"] == "prompt.delta":
                deltas.append(message)
        assert [delta["index"] for delta in deltas] == list(range(len(deltas)))
        assert {(delta["id"], delta["attempt"]) for delta in deltas} == {(prompt_id, 1)}
        assert "".join(delta["text"] for delta in deltas) == message["response_text"]

    def test_the_event_of_a_cancelled_prompt_has_an_error(self, alice: RemoteUser) -> None:
        with alice.join() as room:
            room.receive()
            alice.http.post(f"/prompts/{alice.submit()}/cancel/")
            event = room.receive()
        assert (event["type"], event["status"], event["response_text"]) == ("prompt.cancelled", "cancelled", None)
        assert "error" in event

    def test_no_delta_of_a_prompt_follows_its_last_event(self, alice: RemoteUser, worker: Pipeline) -> None:
        gone = threading.Event()

        class Slow:
            name, max_batch_size = "slow", 1

            def generate(self, request: GenerationRequest) -> Iterator[str]:
                time.sleep(2 * FIRST_DELTA_SECONDS)
                yield "before "
                alice.http.delete(f"/prompts/{prompt_id}/")
                gone.set()
                for _ in range(5):
                    time.sleep(0.06)
                    yield "secret "

        with alice.join() as room:
            room.receive()
            prompt_id = alice.submit()
            dataclasses.replace(worker, generator=Slow()).process(1)
            assert gone.is_set()
            assert room.receive()["text"] == "before "
            assert room.ask({"type": "ping"})["type"] == "pong"

    def test_a_prompt_without_websocket_sends_no_event(self, alice: RemoteUser, worker: Pipeline) -> None:
        with alice.join() as room:
            room.receive()
            alice.submit("quiet", websocket=False)
            worker.process(1)
            alice.submit("loud")
            worker.process(1)
            event = room.receive_ending()
        assert (event["prompt_text"], event["seq"]) == ("loud", 2)

    def test_every_socket_of_the_room_gets_each_event_once_in_order(self, alice: RemoteUser, worker: Pipeline) -> None:
        with alice.join() as one, alice.join() as two:
            ids = [alice.submit(f"{i}") for i in range(10)]
            worker.process(len(ids))
            for room in (one, two):
                room.receive()
                events = [room.receive_ending() for _ in ids]
                assert [event["seq"] for event in events] == list(range(1, 11))
                assert sorted(event["id"] for event in events) == ids
                assert room.ask({"type": "ping"})["type"] == "pong"

    def test_a_room_receives_no_events_of_other_users(self, alice: RemoteUser, url: str, worker: Pipeline) -> None:
        bob = RemoteUser(url)
        with alice.join() as room:
            room.receive()
            bob.submit("secret")
            worker.process(1)
            assert room.ask({"type": "ping"})["type"] == "pong"


class TestSince:
    def test_missed_events_come_first_and_live_events_follow(self, alice: RemoteUser, worker: Pipeline) -> None:
        worker.process(len([alice.submit(f"{i}") for i in range(4)]))
        with alice.join(since=1) as room:
            assert room.receive()["seq"] == 4
            assert [room.receive_ending()["seq"] for _ in range(3)] == [2, 3, 4]
            alice.submit("live")
            worker.process(1)
            assert room.receive_ending()["seq"] == 5

    def test_a_client_that_missed_no_event_gets_none(self, alice: RemoteUser, worker: Pipeline) -> None:
        alice.submit()
        worker.process(1)
        with alice.join(since=1) as room:
            assert room.receive()["seq"] == 1
            assert room.ask({"type": "ping"})["type"] == "pong"

    def test_since_0_replays_every_event(self, alice: RemoteUser, worker: Pipeline) -> None:
        worker.process(len([alice.submit(f"{i}") for i in range(3)]))
        with alice.join(since=0) as room:
            room.receive()
            assert [room.receive()["prompt_text"] for _ in range(3)] == ["0", "1", "2"]

    def test_purged_events_are_a_reset(self, alice: RemoteUser, worker: Pipeline, sessions) -> None:
        worker.process(len([alice.submit(f"{i}") for i in range(3)]))
        with sessions.begin() as session:
            user = users.find(session, alice.username)
            session.execute(text("DELETE FROM feed WHERE user_id = :id AND seq <= 2"), {"id": user.id})
        with alice.join(since=0) as room:
            room.receive()
            assert room.receive() == {"type": "reset", "seq": 3}
            alice.submit("live")
            worker.process(1)
            assert room.receive_ending()["seq"] == 4

    def test_a_position_in_the_future_is_a_reset(self, alice: RemoteUser) -> None:
        with alice.join(since=99) as room:
            room.receive()
            assert room.receive() == {"type": "reset", "seq": 0}

    def test_with_all_the_room_has_every_prompt_and_deletions_live_and_replayed(
        self, alice: RemoteUser, worker: Pipeline
    ) -> None:
        with alice.join(everything="true") as room, alice.join() as usual:
            room.receive(), usual.receive()
            quiet, loud = alice.submit("quiet", websocket=False), alice.submit("loud")
            worker.process(2)
            alice.http.delete(f"/prompts/{quiet}/").raise_for_status()
            live = [room.receive() for _ in range(3)]
            assert [(each["type"], each["seq"], each["id"]) for each in live] == [
                ("prompt.completed", 1, quiet), ("prompt.completed", 2, loud), ("prompt.deleted", 3, quiet),
            ]  # fmt: skip
            assert live[0]["prompt_text"] == "quiet"
            assert usual.receive()["id"] == loud
        with alice.join(everything="true", since=0) as room:
            assert [room.receive()["type"] for _ in range(3)] == ["connected", "prompt.completed", "prompt.deleted"]

    @pytest.mark.parametrize("everything", ["", "1", "True"])
    def test_a_malformed_all_is_4400(self, alice: RemoteUser, everything: str) -> None:
        assert refusal(alice, everything=everything)[1] == 4400

    @pytest.mark.parametrize("since", ["", "x", "-1", "1.5", "9" * 30, "²"])
    def test_a_malformed_position_is_4400(self, alice: RemoteUser, since: str) -> None:
        message, code = refusal(alice, since=since)
        assert message.keys() == {"error"}
        assert code == 4400

    def test_an_event_whose_announcement_was_lost_is_still_sent(
        self, alice: RemoteUser, worker: Pipeline, settings: Settings
    ) -> None:
        """As when a worker dies between commit and publish: the relay's periodic check of the feed finds the event."""
        with alice.join() as room:
            room.receive()
            _without_announcements(worker, [alice.submit("unannounced")])
            assert room.receive()["prompt_text"] == "unannounced"

    def test_a_missing_event_is_sent_before_the_next_one(self, alice: RemoteUser, worker: Pipeline) -> None:
        with alice.join() as room:
            room.receive()
            _without_announcements(worker, [alice.submit("unannounced")])
            alice.submit("announced")
            worker.process(1)
            assert [room.receive_ending()["seq"] for _ in range(2)] == [1, 2]

    def test_no_event_is_missed_in_a_silent_reconnect_to_redis(
        self, alice: RemoteUser, worker: Pipeline, settings: Settings
    ) -> None:
        redis = make_redis(settings)
        with redis, alice.join() as room:
            room.receive()
            for i in range(1, 11):
                redis.client_kill_filter(_type="pubsub")
                alice.submit(f"{i}")
                worker.process(1)
                assert room.receive_ending()["seq"] == i


def _without_announcements(worker: Pipeline, ids: list[int]) -> None:
    """Complete prompts without announcing them."""

    class Silent:
        def announce(self, *_: object) -> None: ...

    dataclasses.replace(worker, announcer=Silent()).process(len(ids))


class TestMessagesFromTheClient:
    @pytest.fixture
    def room(self, alice: RemoteUser):
        with alice.join() as joined:
            joined.receive()
            yield joined

    def test_ping_is_answered_with_pong(self, room) -> None:
        answer = room.ask({"type": "ping"})
        assert answer.keys() == {"type", "timestamp"}
        assert answer["type"] == "pong"

    def test_any_other_type_is_echoed(self, room) -> None:
        message = {"type": "chat", "text": "Grüße 👋", "n": [1, 2.5, None]}
        answer = room.ask(message)
        assert answer.keys() == {"type", "data", "timestamp"}
        assert (answer["type"], answer["data"]) == ("echo", message)

    @pytest.mark.parametrize(
        "message",
        [
            "{",
            "hello",
            '{"type": "\\ud800"}',
            "[" * 5000,
            b"\xff\xfe",
            '{"type": "x", "v": 1e999}',
            '{"type": "x", "v": NaN}',
        ],
    )
    def test_a_message_that_is_not_json_is_an_error(self, room, message) -> None:
        answer = room.ask(message)
        assert (answer["type"], answer["message"]) == ("error", "Invalid JSON format")
        assert "timestamp" in answer

    @pytest.mark.parametrize("message", ["{}", '{"kind": "ping"}', "[]", "1", "null", '"ping"'])
    def test_a_message_without_a_type_is_an_error(self, room, message: str) -> None:
        answer = room.ask(message)
        assert (answer["type"], answer["message"]) == ("error", "Missing 'type' field")

    def test_blank_messages_are_ignored(self, room) -> None:
        for blank in ("", " ", "\n\t"):
            room.connection.send(blank)
        assert room.ask({"type": "ping"})["type"] == "pong"

    def test_a_message_may_come_in_fragments(self, room) -> None:
        room.connection.send(['{"type"', ': "pi', 'ng"}'])
        assert room.receive()["type"] == "pong"

    def test_a_message_that_imitates_an_event_changes_nothing(self, room, alice: RemoteUser) -> None:
        room.ask({"type": "prompt.completed", "id": 1, "user": alice.username})
        assert alice.http.get("/prompts/").json() == []


class TestAbuse:
    def test_a_message_over_64_kib_is_1009(self, alice: RemoteUser) -> None:
        with alice.join() as room:
            room.receive()
            room.ask(json.dumps({"type": "x" * 65_000}))
            with contextlib.suppress(ConnectionClosed):
                room.connection.send("x" * 10_000_000)
            assert room.close_code() == 1009

    def test_many_small_fragments_over_64_kib_are_1009(self, alice: RemoteUser) -> None:
        with alice.join() as room:
            room.receive()
            with contextlib.suppress(ConnectionClosed):
                room.connection.send("x" * 1000 for _ in range(1000))
            assert room.close_code() == 1009

    def test_compression_is_not_offered(self, alice: RemoteUser) -> None:
        with alice.join() as room:
            assert room.connection.protocol.extensions == []

    @pytest.mark.parametrize("frame", [b"\x81\x05hello", b"\xf1\x80\0\0\0\0", b"\x83\x80\0\0\0\0", b"\x89\xfe\xff\xff"])
    def test_malformed_frames_end_the_socket_with_1002(self, alice: RemoteUser, frame: bytes) -> None:
        with alice.join() as room:
            room.receive()
            room.connection.socket.sendall(frame + b"\0" * 200)
            assert room.close_code() == 1002
        assert alice.http.get("/livez").status_code == 200

    def test_text_that_is_not_utf8_is_1007(self, alice: RemoteUser) -> None:
        with alice.join() as room:
            room.receive()
            room.connection.socket.sendall(b"\x81\x82\0\0\0\0\xc3\x28")
            assert room.close_code() == 1007

    def test_clients_that_disappear_do_not_disturb_the_room(self, alice: RemoteUser, worker: Pipeline) -> None:
        for _ in range(20):
            with alice.join() as room:
                room.connection.socket.shutdown(socket.SHUT_RDWR)
        with alice.join() as room:
            room.receive()
            alice.submit()
            worker.process(1)
            assert room.receive_ending()["seq"] == 1

    def test_a_slow_reader_is_closed_delays_no_other_and_can_resume(
        self, alice: RemoteUser, url: str, sessions: Sessions, settings: Settings
    ) -> None:
        """Far more events than the kernel buffers: the slow socket is closed, the quick one gets every event."""
        from shared.messaging import announcements
        from shared.messaging.announcements import Announcer
        from shared.prompts import feed, submission

        slow = _raw_socket(url, alice)
        with alice.join(max_size=None) as quick:
            quick.receive()
            announcer = Announcer(make_redis(settings))
            for i in range(60):  # quickly: a send to a client that does not read is given up after 25 s
                with sessions.begin() as session:
                    user_id = users.find(session, alice.username).id
                    prompt = lifecycle.submit(session, user_id, "x" * 500_000)
                    ending = submission.cancel(session, user_id, prompt.id)
                announcer.announce((user_id, announcements.from_finished(ending)))
                assert quick.receive()["seq"] == i + 1
            assert alice.http.get("/livez").status_code == 200
            with sessions() as session:
                assert feed.position(session, user_id, None) == (60, True)
        read = b""
        slow.settimeout(MAX_WAIT_SECONDS)
        while chunk := slow.recv(1 << 20):
            read = (read + chunk)[-200:]
        slow.close()
        assert (1013).to_bytes(2) in read
        with alice.join(since=55, max_size=None) as room:
            room.receive()
            assert [room.receive()["seq"] for _ in range(5)] == [56, 57, 58, 59, 60]


def _raw_socket(url: str, user: RemoteUser) -> socket.socket:
    """A raw socket that has joined the user's room and does not read."""
    host, port = url.removeprefix("http://").split(":")
    raw = socket.create_connection((host, int(port)), timeout=MAX_WAIT_SECONDS)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
    raw.sendall(
        f"GET /ws/prompts/{user.username}/ HTTP/1.1\r\nHost: {host}:{port}\r\n"
        f"Authorization: Bearer {user.tokens['access']}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert raw.recv(1024).startswith(b"HTTP/1.1 101")
    return raw


class TestGoingDown:
    def test_sockets_are_closed_with_1012_and_can_resume_elsewhere(
        self, settings: Settings, worker: Pipeline, url: str
    ) -> None:
        port = processes.free_port()
        with processes.process(processes.API, settings, PORT=str(port)) as running:
            wait_until(lambda: processes.answers(f"http://127.0.0.1:{port}"))
            alice = RemoteUser(f"http://127.0.0.1:{port}")
            with alice.join() as room:
                room.receive()
                alice.submit("before")
                worker.process(1)
                assert room.receive_ending()["seq"] == 1
                started = time.monotonic()
                os.kill(running.pid, signal.SIGTERM)
                assert room.close_code() == 1012
            running.wait(timeout=10)
            assert time.monotonic() - started < 10
        alice.url = url
        alice.http.base_url = url
        alice.submit("meanwhile")
        worker.process(1)
        with alice.join(since=1) as room:
            room.receive()
            assert room.receive_ending()["prompt_text"] == "meanwhile"


def test_an_odd_username_in_the_path_is_refused(url: str, alice: RemoteUser) -> None:
    for name in ("%00", "%2e%2e", "a%0ab", str(uuid4()) * 10):
        assert refusal(alice, path=f"/ws/prompts/{name}/")[1] in (4403, 4001)
