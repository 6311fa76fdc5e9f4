"""A slow identity provider does not stop the event loop: in a process of its own, which gevent patches."""

import subprocess
import sys

from tests.support.servers import MAX_WAIT_SECONDS, ROOT

PROGRAM = """
from gevent import monkey
monkey.patch_all()
import socket
import gevent
from gevent.event import Event
from api.auth.oidc.errors import ProviderUnavailableError
from api.auth.oidc.http import fetch_json

may_answer = Event()

def serve():
    client, _ = listener.accept()
    client.recv(65536)
    may_answer.wait()
    client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}")

with socket.create_server(("127.0.0.1", 0)) as listener:
    gevent.spawn(serve)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    fetching = gevent.spawn(fetch_json, "GET", url, max_seconds=600)
    for _ in range(20):
        gevent.sleep(0.005)
    print("others run while it waits:", not fetching.ready())
    may_answer.set()
    print(fetching.get())
    silent = gevent.spawn(fetch_json, "GET", url, max_seconds=0.1)
    try:
        silent.get()
    except ProviderUnavailableError as error:
        print("given up:", "does not answer" in str(error))
"""


def test_other_requests_run_while_the_provider_is_slow() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=MAX_WAIT_SECONDS, check=True
    )
    assert run.stdout.splitlines() == ["others run while it waits: True", "(200, {})", "given up: True"]
