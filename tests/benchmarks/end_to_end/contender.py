"""What the load generator knows about a service, ours or a peer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Account:
    """A user and their access token or API key."""

    username: str
    token: str


@dataclass(frozen=True)
class Contender:
    """A running service.

    A prompt is `POST {submit_path}` with `{"prompt_text": …, "websocket": true}` and `Authorization: Bearer <token>`;
    it is accepted with a status of 2xx. Its answer comes to the sockets of its user at `/ws/prompts/<username>/`,
    joined with the same header: a JSON text message with a `response_text` and with the `prompt_text` that was sent,
    which the load generator makes unique. Other messages (greetings, deltas) lack one of these, or have null there.

    `parts` are process ids by role ("api", "worker", "valkey", "postgres"); each id stands for its children as well.
    """

    name: str
    url: str
    accounts: Sequence[Account]
    parts: Mapping[str, Sequence[int]]
    submit_path: str = "/prompts/"
