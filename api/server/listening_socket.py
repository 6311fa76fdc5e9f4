"""How a process stops listening without resetting a connection.

A connection that the kernel has accepted, but the process has not, is reset when the listening socket closes. So before
a close new connections are refused by a kernel filter, handshakes in progress may end, and what the kernel has
accepted is taken in.
"""

import contextlib
import ctypes
import mmap
import socket
import struct
import sys
from typing import Any

import gevent
from gevent.server import StreamServer

from api.server.client_socket import ClientSocket

#: How long TCP handshakes in progress may take.
HANDSHAKE_SECONDS = 0.2

#: For this many requests on open connections one new connection is accepted, and one at least.
_REQUESTS_PER_CONNECTION = 2
_MAX_IN_A_ROW = 50

# A classic BPF program for a TCP socket: drop packets with the flag SYN and without ACK, pass all others.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFF),  # pass
)
_SO_ATTACH_FILTER = 26


class SocketClosing:
    """Whether the listening socket itself goes away, in memory that the master and its workers share.

    It stays open if the master hands it on to a successor (SIGUSR2), or if systemd owns it.
    """

    def __init__(self) -> None:
        self._flag = mmap.mmap(-1, 1)

    def __bool__(self) -> bool:
        return bool(self._flag[0])

    def watch(self, arbiter: Any) -> None:
        """Set the flag when gunicorn's master stops. Call it in the master, before it forks."""
        stop = arbiter.stop

        def stop_and_set_flag(graceful: bool = True) -> None:
            self._flag[0] = arbiter.reexec_pid == arbiter.master_pid == 0 and not arbiter.systemd
            stop(graceful)

        arbiter.stop = stop_and_set_flag


socket_closing = SocketClosing()


class DrainingServer(StreamServer):  # type: ignore[misc]
    """gevent's server, which accepts new connections in fair turns, and all established ones before it closes."""

    _requests_seen: int = 0

    @property
    def max_accept(self) -> int:
        """How many connections are accepted in a row.

        gevent would accept a hundred, and start as many requests before it looks at any socket. One alone would leave
        new connections waiting for seconds when each iteration of the event loop serves hundreds of requests.
        """
        received = ClientSocket.requests_received
        new, self._requests_seen = received - self._requests_seen, received
        return min(max(1, new // _REQUESTS_PER_CONNECTION), _MAX_IN_A_ROW)

    @max_accept.setter
    def max_accept(self, count: int) -> None:
        """gunicorn sets it to 1 if there are several processes."""

    def do_read(self) -> tuple[ClientSocket, Any] | None:
        accepted = super().do_read()
        if accepted is None:
            return None
        connection, address = accepted
        return ClientSocket(connection.family, connection.type, connection.proto, connection.detach()), address

    def close(self) -> None:
        if not self.closed:
            with contextlib.suppress(OSError):  # the kernel has no filters, or no file descriptor is left
                if socket_closing:
                    _refuse_new_connections(self.socket)
                    gevent.sleep(HANDSHAKE_SECONDS)
                self.stop_accepting()
                for accepted in iter(self.do_read, None):
                    self.do_handle(*accepted)
            gevent.sleep(0)  # handlers first ask the listening socket for its name
        super().close()


def _refuse_new_connections(listening: socket.socket) -> None:
    """Drop the first packet of new connections, on Linux (socket(7), SO_ATTACH_FILTER).

    The client's kernel tries again in a second, and is refused or reaches the successor.
    """
    if sys.platform == "linux":
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN))
        described = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program))
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
