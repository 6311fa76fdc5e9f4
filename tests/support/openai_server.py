"""A server on this machine that implements OpenAI's API, and misbehaves as a test demands.

Its reply to a request is the first of these that applies: a reply that the test has scripted (`script`,
`script_embeddings`); the words of the prompt, if they begin with one of the COMMANDS of `openai_replies.py` (for
embeddings those of the first input, after the word "embedding") or are "held NAME COUNT"; a regular answer. "once"
before a command applies it only to the first request with that Idempotency-Key, or that body.
"""

import contextlib
import json
import os
import select
import socket
import struct
import threading
import time
from base64 import b64encode
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from shared.providers import message_texts
from tests.support.openai_replies import Gate, Reply, commanded, some_words
from tests.support.processes import free_port

MODEL = "test-model-2026-01-01"  # servers return the exact version of the requested model


@dataclass
class ReceivedRequest:
    """A request. Times are by time.monotonic(), which all processes of a machine share."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    arrived: float
    first_chunk_sent: float | None = None  #: just before the first chunk of text is sent
    #: Set when the client has disconnected before the end.
    abandoned: threading.Event = field(default_factory=threading.Event)

    @property
    def text(self) -> str:
        """The prompt, or the first text to embed."""
        if "messages" in self.body:
            return str(self.body["messages"][-1]["content"])
        given = self.body["input"]
        return str(given if isinstance(given, str) else given[0])


class OpenAIServer:
    """`POST {url}/chat/completions`, streamed or whole, `POST {url}/embeddings`, and `GET {url}/models`.

    `requests` has all POST requests.
    """

    def __init__(self, *, dimension: int = 8) -> None:
        self.dimension = dimension  #: of vectors, unless the request asks for another
        self.requests: list[ReceivedRequest] = []
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._chat: deque[Reply] = deque()
        self._embeddings: deque[Reply] = deque()
        self.models: list[str] = [MODEL]
        self.models_reply = Reply()  #: if it has a body, or a status other than 200: to requests for the models
        self._gates: dict[str, Gate] = {}
        self._known_keys: set[str] = set()
        self._lock = threading.Lock()
        self._http: _Http | None = None

    def __enter__(self) -> "OpenAIServer":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, on the same port each time."""
        self._http = _Http(self)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Stop listening and close all connections. Connections are refused until `start`."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http.close_connections()
            self._http = None

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the server during the block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def reset(self) -> None:
        """Forget all requests and scripted replies."""
        for each in (self.requests, self._chat, self._embeddings, self._gates, self._known_keys):
            each.clear()
        self.models, self.models_reply = [MODEL], Reply()

    def script(self, *replies: Reply) -> None:
        """Set the replies to the next requests for chat completions."""
        self._chat.extend(replies)

    def script_embeddings(self, *replies: Reply) -> None:
        """Set the replies to the next requests for embeddings; `Reply()` is a regular answer."""
        self._embeddings.extend(replies)

    def gate(self, name: str) -> Gate:
        """Return the gate of prompts "held NAME COUNT"."""
        with self._lock:
            return self._gates.setdefault(name, Gate())

    def reply_to(self, request: ReceivedRequest) -> Reply:
        is_chat = request.path.endswith("/chat/completions")
        scripted = self._chat if is_chat else self._embeddings
        with contextlib.suppress(IndexError):
            return scripted.popleft()
        words = request.text.split()
        if not is_chat:
            words = words[1:] if words[:1] == ["embedding"] else []
        if words[:1] == ["once"]:
            words = words[1:] if self._is_new(request) else []
        if words[:1] == ["held"]:
            _, name, count = words
            return Reply(some_words(count), gate=self.gate(name))
        return commanded(words)

    def _is_new(self, request: ReceivedRequest) -> bool:
        key = request.path + request.headers.get("Idempotency-Key", json.dumps(request.body))
        with self._lock:
            is_new = key not in self._known_keys
            self._known_keys.add(key)
        return is_new

    def vector(self, text: str, dimension: int | None = None) -> np.ndarray:
        """Return the unit vector of a text; texts that share words are near."""
        vector = np.zeros(dimension or self.dimension)
        for word in text.lower().split() or [text]:
            seed = int.from_bytes(sha256(word.encode()).digest()[:8])
            vector += np.random.default_rng(seed).normal(size=len(vector))
        return (vector / np.linalg.norm(vector)).astype("<f4")


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, server: OpenAIServer) -> None:
        self.owner = server
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", server.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Close all connections."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: clients may disconnect."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # each chunk is sent immediately
    server: _Http

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        reply = self.server.owner.models_reply
        if urlsplit(self.path).path != "/v1/models":
            self._send(404, self._error(Reply(message=f"There is no {self.path}")))
        elif reply.body is not None or reply.status != 200:
            self._send(reply.status, self._error(reply) if reply.body is None else reply.body, reply.headers)
        else:
            listed = [
                {"id": name, "object": "model", "created": 0, "owned_by": "test"} for name in self.server.owner.models
            ]
            self._send(200, json.dumps({"object": "list", "data": listed}))

    def do_POST(self) -> None:
        arrived = time.monotonic()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.path = urlsplit(self.path).path  # a whole URL if this server is the client's proxy
        self.received = ReceivedRequest(self.path, self.headers, body, arrived)
        self.server.owner.requests.append(self.received)
        reply = self.server.owner.reply_to(self.received)
        if not self._wait(reply.slow):
            return
        if reply.body is not None or reply.status != 200:
            self._send(reply.status, self._error(reply) if reply.body is None else reply.body, reply.headers)
        elif self.path == "/v1/embeddings":
            self._send(200, json.dumps(self._embeddings()))
        elif self.path != "/v1/chat/completions":
            self._send(404, self._error(Reply(message=f"There is no {self.path}")))
        elif self.received.body.get("stream"):
            self._stream(reply)
        else:
            self._send(200, json.dumps(self._completion(reply)))

    def _error(self, reply: Reply) -> str:
        message = reply.message
        if reply.code == "invalid_api_key":  # like OpenAI, repeat parts of the key
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            message = f"Incorrect API key provided: {key[:8]}****{key[-4:]}."
        error = {"message": message, "type": "test_error", "param": None, "code": reply.code}
        return json.dumps({"error": error})

    def _send(self, status: int, body: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        usual = {"Content-Type": "application/json", "Content-Length": str(len(body.encode()))}
        for name, value in (usual | dict(headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    # Chat completions

    def _completion(self, reply: Reply) -> dict[str, Any]:
        message = {"role": "assistant", "content": None, "refusal": None, reply.key: "".join(reply.chunks)}
        if reply.tool_calls:
            message["tool_calls"] = list(reply.tool_calls)
        choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason, "logprobs": None}
        return self._object("chat.completion") | {"choices": [choice], "usage": self._usage(reply)}

    def _stream(self, reply: Reply) -> None:
        self.send_response(200)
        for name, value in ({"Content-Type": "text/event-stream"} | dict(reply.headers)).items():
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._event(self._chunk({"role": "assistant", "content": ""}))
        for number, text in enumerate(reply.chunks):
            if not (self._wait(reply.pause if number else 0) and self._pass(reply.gate)):
                return
            self.received.first_chunk_sent = self.received.first_chunk_sent or time.monotonic()
            self._event(self._chunk({reply.key: text}))
        for index, call in enumerate(reply.tool_calls):
            self._stream_call(index, call)
        self._end(reply)

    def _stream_call(self, index: int, call: dict[str, Any]) -> None:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        half = len(arguments) // 2
        begun = call | {"index": index, "function": {"name": name, "arguments": arguments[:half]}}
        for piece in (begun, {"index": index, "function": {"arguments": arguments[half:]}}):
            self._event(self._chunk({"tool_calls": [piece]}))

    def _end(self, reply: Reply) -> None:
        if reply.then == "finish":
            last = self._chunk({}, reply.finish_reason)
            usage = {"usage": self._usage(reply)}
            self._event(last | usage if reply.usage == "last chunk" else last)
            if reply.usage == "own chunk":
                self._event(self._object("chat.completion.chunk") | {"choices": []} | usage)
            self._line("[DONE]")
        elif reply.then == "garbage":
            self._line('{"choices": [{"del')
        elif reply.then == "error":
            self._line(self._error(reply))
        elif reply.then == "hang":
            self._wait(3600)
        elif reply.then == "close":
            self.close_connection = True
            return
        elif reply.then == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")

    def _object(self, kind: str) -> dict[str, Any]:
        return {"id": "chatcmpl-1", "object": kind, "created": 1_790_000_000, "model": MODEL}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return self._object("chat.completion.chunk") | {"choices": [choice]}

    def _usage(self, reply: Reply) -> dict[str, int]:
        """Count words as tokens."""
        texts = [text for message in self.received.body["messages"] for text in message_texts(message)]
        prompt = sum(len(text.split()) for text in texts)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": len(reply.chunks),
            "total_tokens": prompt + len(reply.chunks),
        }

    def _event(self, data: dict[str, Any]) -> None:
        self._line(json.dumps(data))

    def _line(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

    # Embeddings

    def _embeddings(self) -> dict[str, Any]:
        body = self.received.body
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        vectors = [self.server.owner.vector(text, body.get("dimensions")) for text in texts]
        in_base64 = body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": i, "embedding": b64encode(v).decode() if in_base64 else v.tolist()}
            for i, v in enumerate(vectors)
        ]
        tokens = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "model": body["model"], "data": data, "usage": usage}

    # Waiting, while watching for a disconnect of the client

    def _pass(self, gate: Gate | None) -> bool:
        while gate is not None and not gate.passes(0.01):
            if self._is_abandoned():
                return False
        return True

    def _wait(self, seconds: float) -> bool:
        """Wait. Returns whether the client is still connected afterwards."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._is_abandoned():
                return False
            time.sleep(min(0.01, left))
        return True

    def _is_abandoned(self) -> bool:
        if select.select([self.connection], [], [], 0)[0]:
            with contextlib.suppress(ConnectionError):
                if self.connection.recv(1, socket.MSG_PEEK):
                    return False
            self.received.abandoned.set()
            self.close_connection = True
            return True
        return False
