"""What the peers with FastAPI have in common: the route, the room, and one subscription for all sockets."""

import asyncio
import contextlib
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Annotated, NamedTuple

import jwt
from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketDisconnect, status
from pydantic import BaseModel, Field
from redis.asyncio import Redis
from starlette.requests import HTTPConnection


class Stored(NamedTuple):
    """A prompt that was stored and queued."""

    id: int
    status: str
    created_at: datetime


class Caller(NamedTuple):
    """The authenticated user, from the token."""

    id: int
    username: str


class Submission(BaseModel):
    """A submission."""

    prompt_text: str = Field(min_length=1, max_length=10_000)
    websocket: bool = False


class Submitted(BaseModel):
    """A queued prompt."""

    id: int
    user: str
    prompt_text: str
    status: str
    created_at: datetime


async def authenticate(connection: HTTPConnection) -> Caller:
    scheme, _, token = connection.headers.get("Authorization", "").partition(" ")
    try:
        claims = jwt.decode(token if scheme == "Bearer" else "", os.environ["PEER_SECRET"], algorithms=["HS256"])
    except jwt.InvalidTokenError as error:
        headers = {"WWW-Authenticate": "Bearer"}
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, str(error), headers) from error
    return Caller(int(claims["sub"]), claims["username"])


Authenticated = Annotated[Caller, Depends(authenticate)]


class Rooms:
    """The sockets by user. A client that does not read blocks the other sockets."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._sockets: defaultdict[int, set[WebSocket]] = defaultdict(set)

    @contextlib.contextmanager
    def join(self, user_id: int, socket: WebSocket) -> Iterator[None]:
        """Send the user's published events to the socket."""
        self._sockets[user_id].add(socket)
        try:
            yield
        finally:
            self._sockets[user_id].discard(socket)

    async def relay(self) -> None:
        """Relay published events forever."""
        async with self._redis.pubsub() as pubsub:
            await pubsub.psubscribe(f"{os.environ['PEER_CHANNELS']}*")
            async for message in pubsub.listen():
                if message["type"] == "pmessage":
                    user_id = int(message["channel"].rpartition(b":")[2])
                    await self._send(user_id, message["data"].decode())

    async def _send(self, user_id: int, text: str) -> None:
        for socket in list(self._sockets.get(user_id, ())):
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # the socket has just closed
                await socket.send_text(text)


def make_app(
    store: Callable[[int, str], Awaitable[Stored]],
    queue: Callable[[], AbstractAsyncContextManager[object]],
    redis: Redis,
) -> FastAPI:
    """An application that stores and queues prompts by `store`, while `queue` is open."""
    rooms = Rooms(redis)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with queue():
            relaying = asyncio.create_task(rooms.relay())
            yield
            relaying.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/prompts/", status_code=status.HTTP_202_ACCEPTED)
    async def submit(submission: Submission, caller: Authenticated) -> Submitted:
        """Store a prompt, and queue it."""
        stored = await store(caller.id, submission.prompt_text)
        return Submitted(user=caller.username, prompt_text=submission.prompt_text, **stored._asdict())

    @app.websocket("/ws/prompts/{username}/")
    async def room(socket: WebSocket, username: str, caller: Authenticated) -> None:
        """Serve the caller's own room."""
        if caller.username != username:
            raise HTTPException(status.HTTP_403_FORBIDDEN, "This room is another user's.")
        await socket.accept()
        with rooms.join(caller.id, socket), contextlib.suppress(WebSocketDisconnect):
            await socket.send_json({"message": f"Connected to WebSocket room '{username}'."})
            while True:
                await socket.receive_text()

    return app
