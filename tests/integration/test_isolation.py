"""Isolation of users: every route is called with another user's ids and texts, and shows nothing of them."""

import json

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.support.client import ApiUser
from worker.pipeline import Pipeline

SECRET = "xylophone-confession"


class Victim:
    """A user with prompts in several states, an idempotency key, a page cursor, and a webhook with a delivery."""

    def __init__(self, app: Flask, worker: Pipeline) -> None:
        self.user = ApiUser(app, "victim")
        webhook = {"url": f"https://hooks.example/{SECRET}", "description": SECRET}
        self.webhook = self.user.post("/webhooks/", json=webhook).json["id"]
        completed, self.queued, cancelled = (self.user.submit(f"{SECRET} {i}", websocket=True) for i in range(3))
        worker.process(1)
        self.user.post(f"/prompts/{cancelled}/cancel/")
        keyed = {"json": {"prompt_text": f"{SECRET} keyed"}, "headers": {"Idempotency-Key": "the-key"}}
        self.ids = [completed, self.queued, cancelled, self.user.post("/prompts/", **keyed).json["id"]]
        link = self.user.get("/prompts/?limit=1").headers["Link"]
        self.cursor = link.partition("cursor=")[2].partition(">")[0].partition("&")[0]

    def state(self) -> list[dict]:
        """The victim's prompts, but for their positions in the queue: newcomers may pass them."""
        return [prompt | {"position": None} for prompt in self.user.get("/prompts/?limit=100").json]

    def webhooks(self) -> list[list[dict]]:
        return [self.user.get(f"/webhooks/{path}").json for path in ("", f"{self.webhook}/deliveries/")]


def attack(attacker: ApiUser, victim: Victim, route: tuple[str, str]) -> list[TestResponse]:
    """Call the route as the attacker, with each of the victim's values that it accepts."""
    method, path = route
    if "{prompt_id}" in path:
        return [attacker.call(method, path.format(prompt_id=prompt_id)) for prompt_id in victim.ids]
    if "{webhook_id}" in path:
        (delivery, *_) = victim.webhooks()[1]
        body = {"since": 0} if path.endswith("/recover/") else {"url": "https://mine.example/"}
        return [attacker.call(method, path.format(webhook_id=victim.webhook, delivery_id=delivery["id"]), json=body)]
    login = {"username": "victim", "password": "a guess of theirs"}
    bodies = {
        "/prompts/": {"prompt_text": "mine"},
        "/webhooks/": {"url": "https://mine.example/"},
        "/auth/register/": login,
        "/login/": login,
        "/auth/refresh/": {"refresh": victim.user.tokens["access"]},
        "/auth/logout/": {"refresh": victim.user.tokens["access"]},
    }
    if method == "POST":
        return [attacker.post(path, json=bodies[path], headers={"Idempotency-Key": "the-key"})]
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
                if "{" in path:
                    assert response.status_code == 404, where
    assert (victim.state(), victim.webhooks()) == (before, webhooks)
    worker.process(100)
    assert victim.user.show(victim.queued)["status"] == "completed"
