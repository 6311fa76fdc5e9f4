"""Who may use webhooks, and what the audit trail has of them."""

import math

import pytest
from flask import Flask

from api.auth.principal import KeyGrant, Principal
from api.services import Services
from shared.db.models import Scope
from tests.support.client import ApiUser, assert_problem
from tests.support.webhook_calls import URL, Log, act, change, create, deliveries, finish, show
from worker.pipeline import Pipeline

ROUTES = [
    ("GET", ""),
    ("PATCH", ""),
    ("DELETE", ""),
    ("POST", "rotate/"),
    ("POST", "test/"),
    ("GET", "deliveries/"),
    ("POST", "deliveries/1/replay/"),
    ("POST", "recover/"),
]
BODIES = {"PATCH": {"description": "mine"}, "recover/": {"since": 0}}


class TestAccess:
    @pytest.mark.parametrize(("method", "path"), ROUTES)
    def test_the_webhooks_of_others_do_not_exist(
        self, alice: ApiUser, bob: ApiUser, worker: Pipeline, log: Log, method: str, path: str
    ) -> None:
        webhook = create(alice)
        finish(alice, worker)
        log.end_all()
        (delivery,) = deliveries(alice, webhook)
        path = path.replace("/1/", f"/{delivery['id']}/")
        body = BODIES.get(path, BODIES.get(method))
        before = (show(alice, webhook), deliveries(alice, webhook))
        answers = [
            bob.call(method, f"/webhooks/{each}/{path}", **({"json": body} if body else {}))
            for each in (webhook["id"], 999_999)
        ]
        for answer in answers:
            assert_problem(answer, 404)
        assert answers[0].json == answers[1].json
        assert bob.get("/webhooks/").json == []
        assert (show(alice, webhook), deliveries(alice, webhook)) == before

    @pytest.mark.parametrize(("method", "path"), [("GET", None), ("POST", None), *ROUTES])
    def test_every_call_needs_a_token(self, shared_app: Flask, method: str, path: str | None) -> None:
        url = "/webhooks/" if path is None else f"/webhooks/1/{path}"
        response = assert_problem(shared_app.test_client().open(url, method=method), 401)
        assert response["type"] == "urn:promptwire:problem:invalid-token"

    @pytest.mark.parametrize(
        ("scopes", "reading", "writing"),
        [
            ({Scope.PROMPTS_READ, Scope.PROMPTS_WRITE}, 200, 201),
            ({Scope.PROMPTS_READ}, 200, 403),
            ({Scope.PROMPTS_WRITE}, 403, 403),  # it would get answers that it may not read
            ({Scope.KEYS_WRITE, Scope.ADMIN}, 403, 403),
        ],
    )
    def test_an_api_key_needs_to_read_prompts_and_for_changes_also_to_write_them(
        self,
        alice: ApiUser,
        services: Services,
        monkeypatch: pytest.MonkeyPatch,
        scopes: set,
        reading: int,
        writing: int,
    ) -> None:
        principal = Principal(alice.id, "alice", None, math.inf, key=KeyGrant(1, frozenset(scopes)))
        monkeypatch.setattr(services.authenticator, "authenticate_token", lambda _: principal)
        assert alice.get("/webhooks/").status_code == reading
        assert alice.post("/webhooks/", json={"url": URL}).status_code == writing

    def test_ids_out_of_range_are_400_or_404(self, alice: ApiUser) -> None:
        for webhook_id in ("0", str(2**63), "-1", "x", "9" * 400):
            assert alice.get(f"/webhooks/{webhook_id}/").status_code in (400, 404)

    def test_both_forms_of_a_path_work_without_a_redirect(self, alice: ApiUser) -> None:
        assert alice.post("/webhooks", json={"url": URL}).status_code == 201
        assert alice.get("/webhooks").status_code == 200

    def test_creating_deleting_rotating_and_redirecting_a_webhook_is_audited_without_its_url(
        self, alice: ApiUser, log: Log
    ) -> None:
        webhook = create(alice)
        act(alice, webhook, "rotate")
        change(alice, webhook, description="not audited")
        change(alice, webhook, url="https://other.example/")
        alice.delete(f"/webhooks/{webhook['id']}/")
        rows = log.execute("SELECT actor_id, action, user_id, details, address, request_id FROM audit ORDER BY id")
        assert [row.action for row in rows] == [
            f"webhook.{act}" for act in ("created", "rotated", "url_changed", "deleted")
        ]
        for row in rows:
            assert (row.actor_id, row.user_id, row.address) == (alice.id, alice.id, "127.0.0.1")
            assert row.details == {"webhook_id": webhook["id"]}
            assert row.request_id
