"""CPU time that the generator `openai`, and the official client, take for a chunk of an answer:
`make benchmark NAME=stream_reader`.

A server in another process streams answers at a steady pace, each chunk in a packet of its own, as models do. What is
printed is the CPU time of this process, which includes HTTP, for each chunk. It does not depend on other load.
"""

import multiprocessing
import selectors
import socket
import statistics
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import openai

from shared.providers import GenerationRequest
from shared.providers.factory import make_generator
from tests.benchmarks import published
from tests.support.servers import make_settings

#: Streams at a time, chunks of each, seconds between two chunks of a stream.
ROUNDS = ((1, 2_000, 0.001), (200, 40, 0.1))
REPETITIONS = 5
#: Reads an answer, and returns how many chunks it had.
Read = Callable[[], int]

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
    arguments = published.parser(__doc__).parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("fork").Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    port = ours.recv()
    address = f"http://127.0.0.1:{port}/v1"
    readers = {"ours": _ours(address), "official client": _official(address)}
    figures: dict[str, dict[str, dict[str, float]]] = {name: {} for name in readers}
    for streams, chunks, pause in ROUNDS:
        ours.send((chunks, pause))
        for name, read in readers.items():
            taken = [round(_measure(read, streams, chunks), 1) for _ in range(REPETITIONS)]
            found = {"median": statistics.median(taken), "min": min(taken), "max": max(taken)}
            figures[name][str(streams)] = found
            print(f"{name}, {streams} streams: {found['median']} µs of CPU a chunk ({found['min']}-{found['max']})")
    server.terminate()
    if arguments.write:
        published.write("stream_reader", figures)


def _ours(address: str) -> Read:
    given = {"openai_base_url": address, "openai_model": "m", "openai_api_key": "k"}
    generator = make_generator(make_settings(generator="openai", **given))

    def read() -> int:
        return sum(isinstance(piece, str) for piece in generator.generate(GenerationRequest("Why tides?")))

    return read


def _official(address: str) -> Read:
    client = openai.OpenAI(base_url=address, api_key="k")

    def read() -> int:
        message = {"role": "user", "content": "Why tides?"}
        chunks = client.chat.completions.create(model="m", messages=[message], stream=True)  # type: ignore[call-overload]
        return sum(bool(chunk.choices[0].delta.content) for chunk in chunks)

    return read


def _measure(read: Read, streams: int, chunks: int) -> float:
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(read())) for _ in range(streams)]
    started = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.process_time() - started
    if counts != [chunks] * streams:
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
