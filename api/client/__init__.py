"""A client of the Promptwire API: a library and, as `python -m api.client`, a command line.

    from api.client import Client

    with Client("http://127.0.0.1:8000") as client:
        client.login("alice", password)
        prompt = client.submit("Explain tides", wait=True)
        print(prompt["response_text"])
        for event in client.listen(since=0):
            print(event["type"], event["id"])

A program uses an API key instead of a login: `Client(url, api_key="pw_…")`.

It needs httpx, httpx-sse, websockets, click and rich, and nothing else of this project; nothing in this project needs
it. You can copy the folder into another project, under any name.
"""

from .client import DEFAULT_URL, Client
from .errors import ClientError, FieldError, NotLoggedInError, ProblemError, RefusedError, UnreachableError
from .resources import (
    UNFINISHED,
    ApiKey,
    Event,
    NewApiKey,
    Prompt,
    Scope,
    SimilarPrompt,
    Status,
    User,
)
from .token_store import FileTokenStore, Login, MemoryTokenStore, TokenStore
from .webhooks import Delivery, Webhook

__all__ = [
    "DEFAULT_URL",
    "UNFINISHED",
    "ApiKey",
    "Client",
    "ClientError",
    "Delivery",
    "Event",
    "FieldError",
    "FileTokenStore",
    "Login",
    "MemoryTokenStore",
    "NewApiKey",
    "NotLoggedInError",
    "ProblemError",
    "Prompt",
    "RefusedError",
    "Scope",
    "SimilarPrompt",
    "Status",
    "TokenStore",
    "UnreachableError",
    "User",
    "Webhook",
]
