"""The application that uvicorn serves."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, NamedTuple

import jwt
from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketDisconnect, status
from pydantic import BaseModel, Field
from sqlalchemy import insert
from starlette.requests import HTTPConnection

from tests.benchmarks.peers.taskiq_fastapi.database import prompts
from tests.benchmarks.peers.taskiq_fastapi.rooms import Rooms
from tests.benchmarks.peers.taskiq_fastapi.tasks import answer, broker, engine, redis

SECRET = os.environ["PEER_SECRET"]

_SUBMIT = insert(prompts).returning(prompts.c.id, prompts.c.status, prompts.c.created_at)

rooms = Rooms(redis)


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    await broker.startup()
    relaying = asyncio.create_task(rooms.relay())
    yield
    relaying.cancel()
    await broker.shutdown()


app = FastAPI(lifespan=lifespan)


class Caller(NamedTuple):
    """The authenticated user, from the token."""

    id: int
    username: str


async def authenticate(connection: HTTPConnection) -> Caller:
    scheme, _, token = connection.headers.get("Authorization", "").partition(" ")
    try:
        claims = jwt.decode(token if scheme == "Bearer" else "", SECRET, algorithms=["HS256"])
    except jwt.InvalidTokenError as error:
        headers = {"WWW-Authenticate": "Bearer"}
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, str(error), headers) from error
    return Caller(int(claims["sub"]), claims["username"])


Authenticated = Annotated[Caller, Depends(authenticate)]


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


@app.post("/prompts/", status_code=status.HTTP_202_ACCEPTED)
async def submit(submission: Submission, caller: Authenticated) -> Submitted:
    """Store a prompt, then queue it."""
    values = {"user_id": caller.id, "prompt_text": submission.prompt_text}
    async with engine.connect() as connection:
        row = (await connection.execute(_SUBMIT, values)).one()
    await answer.kiq(row.id)
    return Submitted(
        id=row.id,
        user=caller.username,
        prompt_text=submission.prompt_text,
        status=row.status,
        created_at=row.created_at,
    )


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
