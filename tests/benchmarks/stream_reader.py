"""CPU time that the generator `openai` takes for a chunk of an answer: `make benchmark NAME=stream_reader`.

A server in another process streams answers at a steady pace, each chunk in a packet of its own, as models do. What is
printed is the CPU time of this process, which includes HTTP, for each chunk. It does not depend on other load.
"""

import multiprocessing
import selectors
import socket
import statistics
import threading
import time
from multiprocessing.connection import Connection

from shared.providers import GenerationRequest, Generator
from shared.providers.factory import make_generator
from tests.support.servers import make_settings

#: Streams at a time, chunks of each, seconds between two chunks of a stream.
ROUNDS = ((1, 2_000, 0.001), (200, 40, 0.1))
REPETITIONS = 5

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_CHUNK = (
    b'data: {"id":"chatcmpl-CRrW1xmCtq2CBXFTeHhPMPoKXBpZk","object":"chat.completion.chunk","created":1790000000,'
    b'"model":"gpt-4.1-2025-04-14","service_tier":"default","system_fingerprint":"fp_3f58d112f7","choices":[{"index":0,'
    b'"delta":%s,"logprobs":null,"finish_reason":%s}]}\n\n'
)


def main() -> None:
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("fork").Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    port = ours.recv()
    given = {"openai_base_url": f"http://127.0.0.1:{port}/v1", "openai_model": "m", "openai_api_key": "k"}
    generator = make_generator(make_settings(generator="openai", **given))
    for streams, chunks, pause in ROUNDS:
        ours.send((chunks, pause))
        taken = [_measure(generator, streams, chunks) for _ in range(REPETITIONS)]
        median, least, most = statistics.median(taken), min(taken), max(taken)
        print(f"{streams:4} streams: {median:6.1f} µs of CPU a chunk ({least:.1f}-{most:.1f})")
    server.terminate()


def _measure(generator: Generator, streams: int, chunks: int) -> float:
    texts: list[int] = []

    def read() -> None:
        request = GenerationRequest("Why tides?")
        texts.append(sum(isinstance(piece, str) for piece in generator.generate(request)))

    threads = [threading.Thread(target=read) for _ in range(streams)]
    started = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.process_time() - started
    if texts != [chunks] * streams:
        raise RuntimeError("An answer is not complete.")
    return taken / (streams * chunks) * 1e6


def _serve(control: Connection) -> None:
    """Answer requests with as many chunks, at the pace, as `control` says; all in one thread."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    control.send(listener.getsockname()[1])
    chunks, pause = control.recv()
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    due: dict[socket.socket, tuple[float, int]] = {}
    while True:
        for key, _ in selector.select(
            max(0, min((at for at, _ in due.values()), default=time.monotonic() + 1) - time.monotonic())
        ):
            if key.fileobj is listener:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(connection, selectors.EVENT_READ)
                continue
            connection = key.fileobj  # type: ignore[assignment]
            received = connection.recv(65536)
            if not received:
                selector.unregister(connection)
                due.pop(connection, None)
                connection.close()
            elif received.endswith(b"}"):
                if control.poll():
                    chunks, pause = control.recv()
                connection.sendall(_HEAD + _framed(_CHUNK % (b'{"role":"assistant","content":""}', b"null")))
                due[connection] = (time.monotonic() + pause, 0)
        for connection, (at, sent) in list(due.items()):
            if at > time.monotonic():
                continue
            if sent < chunks:
                connection.sendall(_framed(_CHUNK % (b'{"content":" tide%03d"}' % (sent % 1000), b"null")))
                due[connection] = (at + pause, sent + 1)
            else:
                connection.sendall(_framed(_CHUNK % (b"{}", b'"stop"')) + _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")
                del due[connection]


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


if __name__ == "__main__":
    main()
