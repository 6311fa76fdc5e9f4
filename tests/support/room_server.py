"""A WebSocket server whose room a test scripts."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from websockets.sync.server import ServerConnection, serve

from tests.support.servers import MAX_WAIT_SECONDS


@contextmanager
def room_server(room: Callable[[ServerConnection], None]) -> Iterator[str]:
    """Call `room` with each socket, in a thread of its own. Yields the server's URL."""
    with serve(room, "127.0.0.1", 0) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        serving.join(MAX_WAIT_SECONDS)
