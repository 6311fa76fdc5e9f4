"""The Flask application."""

import os
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flask import Flask, abort, request
from flask_jwt_extended import JWTManager, get_jwt, get_jwt_identity, verify_jwt_in_request
from flask_sock import Sock
from redis import Redis
from simple_websocket import Server

from tests.benchmarks.peers.one_task_each.database import SUBMIT, make_engine
from tests.benchmarks.peers.one_task_each.rooms import Rooms

MAX_TEXT_LENGTH = 10_000


def make_app(send: Callable[[int], object]) -> Flask:
    """An application that stores prompts, and queues each by `send`, which gets its id."""
    app = Flask(__name__)
    app.config["JWT_SECRET_KEY"] = os.environ["PEER_SECRET"]
    JWTManager(app)
    sock = Sock(app)
    engine = make_engine()
    rooms = Rooms(Redis.from_url(os.environ["PEER_REDIS_URL"]))
    rooms.start()

    @app.before_request
    def authenticate() -> None:
        """Check the token of every request, including socket handshakes."""
        verify_jwt_in_request()

    @app.post("/prompts/")
    def submit() -> tuple[dict[str, Any], HTTPStatus]:
        """Store a prompt, then queue it."""
        text = request.get_json().get("prompt_text")
        if not (isinstance(text, str) and 0 < len(text) <= MAX_TEXT_LENGTH):
            abort(HTTPStatus.BAD_REQUEST, "prompt_text is missing, empty or too long.")
        with engine.connect() as connection:
            row = connection.exec_driver_sql(SUBMIT, {"user_id": int(get_jwt_identity()), "prompt_text": text}).one()
        send(row.id)
        prompt = {
            "id": row.id,
            "user": get_jwt()["username"],
            "prompt_text": text,
            "status": row.status,
            "created_at": row.created_at.isoformat(),
        }
        return prompt, HTTPStatus.ACCEPTED

    @sock.route("/ws/prompts/<username>/")
    def room(socket: Server, username: str) -> None:
        """Serve the caller's own room."""
        if get_jwt()["username"] != username:
            socket.close(4403, "This room is another user's.")
            return
        with rooms.join(int(get_jwt_identity()), socket):
            socket.send(f'{{"message": "Connected to WebSocket room \'{username}\'."}}')
            while True:
                socket.receive()

    return app
