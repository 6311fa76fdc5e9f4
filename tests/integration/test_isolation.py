"""Isolation of users: every route is called with another user's ids and texts, and shows nothing of them."""

import json

import pytest
from flask import Flask
from sqlalchemy import update
from werkzeug.test import TestResponse

from shared.accounts import users
from shared.db.models import ApiKey, LinkedIdentity
from tests.support import batches
from tests.support.client import PASSWORD, ApiUser
from worker.pipeline import Pipeline

SECRET = "xylophone-confession"


class Victim:
    """A user with prompts in several states, an idempotency key, a page cursor, an API key, a login and a webhook."""

    def __init__(self, app: Flask, worker: Pipeline) -> None:
        self.user = ApiUser(app, "victim")
        webhook = {"url": f"https://hooks.example/{SECRET}", "description": SECRET}
        self.webhook = self.user.post("/webhooks/", json=webhook).json["id"]
        completed, self.queued, cancelled = (self.user.submit(f"{SECRET} {i}", websocket=True) for i in range(3))
        worker.process(1)
        self.user.post(f"/prompts/{cancelled}/cancel/")
        keyed = {"json": {"prompt_text": f"{SECRET} keyed"}, "headers": {"Idempotency-Key": "the-key"}}
        self.ids = [completed, self.queued, cancelled, self.user.post("/prompts/", **keyed).json["id"]]
        self.chat_ids = [self.chat("the-chat-key"), self.chat(None)]
        self.response_ids = [self.respond("the-response-key"), self.respond(None)]
        self.batch = batches.create(self.user, [batches.line(1, SECRET, custom_id=SECRET)], metadata={"note": SECRET})
        self.key_id = self.user.post("/auth/keys/", json={"name": SECRET}).json["id"]
        link = self.user.get("/prompts/?limit=1").headers["Link"]
        with worker.sessions.begin() as session:
            identity = LinkedIdentity(user_id=self.user.id, issuer="https://login.example.com", subject=SECRET)
            session.add(identity)
            session.flush()
            self.identity_id = identity.id
        self.logins = [login["id"] for login in self.user.get("/account/logins/").json]
        self.cursor = link.partition("cursor=")[2].partition(">")[0].partition("&")[0]

    def chat(self, key: str | None) -> str:
        """Begin a chat completion, and hang up. Returns its id."""
        body = {"model": "default", "messages": [{"role": "user", "content": SECRET}], "stream": True}
        headers = {} if key is None else {"Idempotency-Key": key}
        with self.user.post("/v1/chat/completions", json=body, headers=headers) as response:
            return json.loads(next(iter(response.response)).removeprefix(b"data: "))["id"]

    def respond(self, key: str | None) -> str:
        """Queue a response. Returns its id."""
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.user.post("/v1/responses", json={"input": SECRET, "background": True}, headers=headers).json["id"]

    def state(self) -> list[dict]:
        """The victim's account, keys, and prompts, but for their positions in the queue: newcomers may pass them."""
        prompts = [prompt | {"position": None} for prompt in self.user.get("/prompts/?limit=100").json]
        lists = ("/account/logins/", "/account/identities/", "/auth/keys/")
        own = [each for path in lists for each in self.user.get(path).json]
        return [*prompts, self.user.get("/account/").json, *own]

    def webhooks(self) -> list[list[dict]]:
        return [self.user.get(f"/webhooks/{path}").json for path in ("", f"{self.webhook}/deliveries/")]


def attack(attacker: ApiUser, victim: Victim, route: tuple[str, str]) -> list[TestResponse]:
    """Call the route as the attacker, with each of the victim's values that it accepts."""
    method, path = route
    if "{prompt_id}" in path:
        return [attacker.call(method, path.format(prompt_id=prompt_id)) for prompt_id in victim.ids]
    if "{file_id}" in path or "{batch_id}" in path:
        ids = {"file_id": victim.batch["input_file_id"], "batch_id": victim.batch["id"]}
        return [attacker.call(method, path.format(**ids))]
    if "{completion_id}" in path:
        body = {"metadata": {"mine": "1"}} if method == "POST" else None
        return [attacker.call(method, path.format(completion_id=each), json=body) for each in victim.chat_ids]
    if "{response_id}" in path:
        return [attacker.call(method, path.format(response_id=each)) for each in victim.response_ids]
    if "{model_id}" in path:
        return [attacker.call(method, path.format(model_id=SECRET))]
    if path.startswith("/admin/"):
        path = path.format(user_id=victim.user.id, key_id=victim.key_id, operation_id=1, model="default")
        return [attacker.call(method, path, json={"is_admin": True} if method == "PATCH" else None)]
    if "{key_id}" in path:
        return [attacker.call(method, path.format(key_id=victim.key_id))]
    if "{identity_id}" in path:
        return [attacker.call(method, path.format(identity_id=victim.identity_id))]
    if "{login_id}" in path:
        return [attacker.call(method, path.format(login_id=login_id)) for login_id in victim.logins]
    if "{webhook_id}" in path:
        (delivery, *_) = victim.webhooks()[1]
        body = {"since": 0} if path.endswith("/recover/") else {"url": "https://mine.example/"}
        return [attacker.call(method, path.format(webhook_id=victim.webhook, delivery_id=delivery["id"]), json=body)]
    login = {"username": "victim", "password": "a guess of theirs"}
    sign_in = {"code": "a-guess", "code_verifier": "v" * 43}
    bodies = {
        "/prompts/": {"prompt_text": "mine"},
        "/webhooks/": {"url": "https://mine.example/"},
        "/v1/files": {},
        "/v1/batches": {
            "input_file_id": victim.batch["input_file_id"],
            "endpoint": victim.batch["endpoint"],
            "completion_window": "24h",
        },
        # An unknown model, because a chat completion waits for a worker.
        "/v1/chat/completions": {"model": "none", "messages": [{"role": "user", "content": "mine"}]},
        "/v1/responses": {"input": "mine", "background": True, "previous_response_id": victim.response_ids[0]},
        "/v1/embeddings": {"model": "hashing-1", "input": "mine"},
        "/auth/register/": login,
        "/login/": login,
        "/auth/refresh/": {"refresh": victim.user.tokens["access"]},
        "/auth/logout/": {"refresh": victim.user.tokens["access"]},
        "/auth/keys/": {"name": "mine"},
        "/auth/oidc/token/": sign_in,
        "/account/identities/": sign_in | {"password": PASSWORD},
        "/account/password/": {"current_password": PASSWORD, "password": PASSWORD},
    }
    if method == "POST":
        return [attacker.post(path, json=bodies[path], headers={"Idempotency-Key": "the-key"})]
    if (method, path) == ("DELETE", "/account/"):
        return [attacker.call(method, path, json={"password": "a guess of theirs"})]
    queries = [
        {},
        {"cursor": victim.cursor},
        {"user": "victim"},
        {"prompt": SECRET, "limit": 50},
        {"prompt_id": victim.ids[0]},
    ]
    return [attacker.get(path, query_string=query) for query in queries]


@pytest.fixture
def victim(app: Flask, worker: Pipeline) -> Victim:
    return Victim(app, worker)


def test_no_route_shows_or_changes_anything_of_another_user(app: Flask, victim: Victim, worker: Pipeline) -> None:
    attacker = ApiUser(app, "attacker")
    described = app.test_client().get("/openapi.json").json["paths"]
    before, webhooks = victim.state(), victim.webhooks()
    assert SECRET in json.dumps(before)
    for path, operations in described.items():
        for method in operations:
            for response in attack(attacker, victim, (method.upper(), path)):
                where = (method, path, response.status_code, response.text)
                assert SECRET not in response.text, where
                assert "victim" not in response.text.replace("'victim'", ""), where
                assert response.status_code < 500, where
                if path.startswith("/admin/"):
                    assert response.status_code == 403, where
                elif "{" in path:
                    assert response.status_code == 404, where
    assert (victim.state(), victim.webhooks()) == (before, webhooks)
    worker.process(100)
    assert victim.user.show(victim.queued)["status"] == "completed"


def test_admins_see_no_texts_of_prompts(app: Flask, victim: Victim, worker: Pipeline) -> None:
    with worker.sessions.begin() as session:
        session.execute(update(ApiKey).values(name="a key", prefix="pw_"))
        users.create(session, "root", users.hash_password(PASSWORD), is_admin=True)
    admin = ApiUser(app, "root", is_new=False)
    operation = admin.post("/admin/operations/", json={"action": "cancel", "expected_count": 100}).json["id"]
    paths = app.test_client().get("/openapi.json").json["paths"]
    for path in paths:
        if path.startswith("/admin/") and "get" in paths[path]:
            response = admin.get(path.format(user_id=victim.user.id, operation_id=operation))
            assert response.status_code == 200
            assert SECRET not in response.text, path
