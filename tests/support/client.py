"""A user of the API through Flask's test client, and a check of its errors."""

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

from tests.support.servers import MAX_WAIT_SECONDS

PASSWORD = "correct horse battery"


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    """Serve an application from this process, with a thread for each connection. Yields its URL."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join(MAX_WAIT_SECONDS)
        server.server_close()


class ApiUser:
    """A user who is logged in, and registered first if `is_new`."""

    def __init__(self, app: Flask, username: str, *, is_new: bool = True) -> None:
        self.username = username
        self._client = app.test_client()
        body = {"username": username, "password": PASSWORD}
        if is_new:
            self.id = self._client.post("/auth/register/", json=body).json["id"]
        self.tokens = self._client.post("/login/", json=body).json

    def at(self, app: Flask) -> "ApiUser":
        """The same user at another API process."""
        other = copy.copy(self)
        other._client = app.test_client()
        return other

    def create_key(self, **fields: object) -> dict:
        """Create an API key of the user. Returns it as it is shown this once."""
        response = self.post("/auth/keys/", json={"name": "a key"} | fields)
        assert response.status_code == 201, response.text
        return response.json

    def with_key(self, key: str | None = None, **fields: object) -> "ApiUser":
        """The same user with this API key, or a new one, instead of the login."""
        other = copy.copy(self)
        other.tokens = {"access": key or self.create_key(**fields)["key"]}
        return other

    def call(self, method: str, path: str, *, headers: dict[str, str] | None = None, **kwargs) -> TestResponse:
        bearer = {"Authorization": f"Bearer {self.tokens['access']}"}
        return self._client.open(path, method=method, headers=bearer | (headers or {}), **kwargs)

    def get(self, path: str, **kwargs) -> TestResponse:
        return self.call("GET", path, **kwargs)

    def post(self, path: str, **kwargs) -> TestResponse:
        return self.call("POST", path, **kwargs)

    def delete(self, path: str) -> TestResponse:
        return self.call("DELETE", path)

    def submit(self, text: str = "What is a tide?", *, websocket: bool = False) -> int:
        """Submit a prompt. Returns its id."""
        response = self.post("/prompts/", json={"prompt_text": text, "websocket": websocket})
        assert response.status_code == 202, response.text
        return response.json["id"]

    def show(self, prompt_id: int) -> dict:
        return self.get(f"/prompts/{prompt_id}/").json


def assert_problem(response: TestResponse, status: int) -> dict:
    """Check that the response is a problem+json of this status. Returns its body."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    assert {"type", "title", "status", "detail"} <= response.json.keys()
    assert response.json["status"] == status
    return response.json
