"""Latency of the first words from the provider to a user: `make benchmark NAME=first_delta`.

Prompts run one after the other, so that none waits for another. The time runs from just before the provider sends its
first byte of text (which includes this machine's loopback) until a socket, and a server-sent event stream at another
API process, receive it. `ARGS=N` changes the number of prompts.
"""

import statistics
import sys
import threading
import time

from tests.support import processes
from tests.support.events import follow
from tests.support.openai_server import OpenAIServer
from tests.support.processes import RemoteUser
from tests.support.servers import Servers, wait_until

PROMPTS, WARM_UP = 100, 10
TARGET_MS = 50


def main(prompts: int) -> None:
    servers = Servers("benchmark")
    servers.start()
    try:
        with servers.database() as name, OpenAIServer() as provider:
            changes = {"generator": "openai", "openai_base_url": provider.url, "openai_model": "m"}
            settings = servers.settings(name, log_level="ERROR", **changes)
            with processes.api(settings) as url, processes.api(settings) as other_url, processes.worker(settings):
                measure(RemoteUser(url), other_url, provider, prompts)
    finally:
        servers.stop()


def measure(user: RemoteUser, other_url: str, provider: OpenAIServer, prompts: int) -> None:
    by_socket, by_stream = [], []
    with user.join() as room:
        room.receive()
        for number in range(WARM_UP + prompts):
            gate = provider.gate(f"g{number}")
            prompt_id = user.submit(f"held g{number} 3")
            with follow(user, prompt_id, url=other_url) as stream:
                seen = threading.Event()
                times: dict[str, float] = {}

                def read(stream=stream, times=times, seen=seen) -> None:
                    stream.next()
                    times["stream"] = time.monotonic()
                    seen.set()

                threading.Thread(target=read).start()
                wait_until(lambda: len(provider.requests) == number + 1, what="the provider's request")  # noqa: B023
                gate.release()
                while room.receive()["type"] != "prompt.delta":
                    pass
                times["socket"] = time.monotonic()
                seen.wait(10)
                gate.open()
                room.receive_ending()
            sent = provider.requests[-1].first_chunk_sent
            if number >= WARM_UP:
                by_socket.append((times["socket"] - sent) * 1000)
                by_stream.append((times["stream"] - sent) * 1000)
    report("socket", by_socket)
    report("server-sent events", by_stream)


def report(kind: str, taken: list[float]) -> None:
    p99 = statistics.quantiles(taken, n=100, method="inclusive")[98]
    within = sum(each <= TARGET_MS for each in taken)
    print(
        f"{kind:20} p50 {statistics.median(taken):6.1f} ms   p99 {p99:6.1f} ms   "
        f"within {TARGET_MS} ms: {within} of {len(taken)}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else PROMPTS)
