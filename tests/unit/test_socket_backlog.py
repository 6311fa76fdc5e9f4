"""What waits for a socket: it is limited in number and in length."""

import pytest

from api.auth.principal import Principal
from api.realtime.room_session import SocketSession
from api.realtime.subscription import MAX_QUEUED_ANNOUNCEMENTS, MAX_QUEUED_CHARACTERS
from shared.messaging.announcements import Announcement, from_progress


class Recorder:
    """A socket that records what is sent and how it is closed."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.close_code: int | None = None

    def send(self, text: str) -> bool:
        self.sent.append(text)
        return True

    def close(self, code: int, _: str) -> None:
        self.close_code = code

    def listen(self, _: object) -> None: ...


def make_session(socket: Recorder) -> SocketSession:
    principal = Principal(1, "alice", None, float("inf"))
    return SocketSession(None, None, None, None, socket, principal)  # type: ignore[arg-type]


def close_code(lengths: list[int]) -> int | None:
    """The code with which a socket is closed that gets messages of these lengths before it can read."""
    socket = Recorder()
    session = make_session(socket)
    for seq, length in enumerate(lengths, 1):
        session.put(Announcement(seq, prompt_id=seq, attempt=1, message="x" * length))
    session.greet(0, is_kept=True)
    if socket.close_code is None:
        assert len(socket.sent) == 1 + len(lengths)
    return socket.close_code


@pytest.mark.parametrize(
    "lengths",
    [
        [10] * MAX_QUEUED_ANNOUNCEMENTS,
        [MAX_QUEUED_CHARACTERS // 4] * 4,
        [2 * MAX_QUEUED_CHARACTERS],
    ],
)
def test_messages_within_the_limits_wait_for_the_socket(lengths: list[int]) -> None:
    assert close_code(lengths) is None


@pytest.mark.parametrize(
    "lengths",
    [
        [10] * (MAX_QUEUED_ANNOUNCEMENTS + 1),
        [MAX_QUEUED_CHARACTERS // 4] * 5,
        [2 * MAX_QUEUED_CHARACTERS, 10],
    ],
)
def test_a_socket_that_falls_further_behind_is_closed_with_1013(lengths: list[int]) -> None:
    assert close_code(lengths) == 1013


def test_the_progress_of_a_batch_is_passed_on_between_numbered_events() -> None:
    socket = Recorder()
    session, progress = make_session(socket), from_progress({"id": "batch_1"})
    for announcement in (Announcement(1, 1, 1, "first"), progress, Announcement(2, 2, 1, "second")):
        session.put(announcement)
    session.greet(0, is_kept=True)
    assert socket.sent[1:] == ["first", progress.message, "second"]
