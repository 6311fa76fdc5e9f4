"""A server with scripted responses, for errors that the real API cannot produce on demand."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.servers import MAX_WAIT_SECONDS


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: object = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    then_silent: bool = False  #: keep the connection open and send nothing more


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: object


#: Closes the connection without a response.
DROP = None


class StubApi:
    """Sends its answers in order, repeats the last one, and records the requests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[Answer | None] = [Answer()]
        self.requests: list[Request] = []
        self.stopped = threading.Event()

    def next_answer(self) -> Answer | None:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextlib.contextmanager
def stub_api() -> Iterator[StubApi]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            is_json = self.headers.get_content_type() == "application/json"
            body = json.loads(content) if content and is_json else None
            stub.requests.append(Request(self.command, self.path, dict(self.headers), body))
            answer = stub.next_answer()
            if answer is DROP:
                return
            text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(text.encode())), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())
            if answer.then_silent:
                stub.stopped.wait(MAX_WAIT_SECONDS)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer

        def log_message(self, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        stub = StubApi(f"http://127.0.0.1:{server.server_port}")
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            yield stub
        finally:
            stub.stopped.set()
            server.shutdown()
            serving.join(MAX_WAIT_SECONDS)
