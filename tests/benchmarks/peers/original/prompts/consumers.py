"""The peer's sockets: any user may join any room, as in that design."""

import json
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer


def group_of(username: str) -> str:
    """Return the name of the group that a user's sockets join."""
    return f"prompts_{username}"


class PromptConsumer(AsyncWebsocketConsumer):
    """A socket in a user's room."""

    async def connect(self) -> None:
        username = self.scope["url_route"]["kwargs"]["username"]
        self._group = group_of(username)
        await self.channel_layer.group_add(self._group, self.channel_name)
        await self.accept()
        await self.send(json.dumps({"message": f"Connected to WebSocket room '{username}'."}))

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self._group, self.channel_name)

    async def prompt_completed(self, event: dict[str, Any]) -> None:
        await self.send(json.dumps(event["prompt"]))
