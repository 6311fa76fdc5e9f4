"""API keys, as the contract has them: what they are, who may make which, and what they may do."""

import hashlib
import re
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import insert, select, text, update

from api.services import Services
from shared import timestamps
from shared.accounts import api_keys
from shared.db.engine import Sessions
from shared.db.models import ApiKey, AuditEntry, User
from tests.support.client import ApiUser, assert_problem
from tests.support.servers import ROOT


def in_hours(hours: float) -> str:
    return timestamps.rfc3339(datetime.now(UTC) + timedelta(hours=hours))


@pytest.fixture
def admin(app: Flask, sessions: Sessions) -> ApiUser:
    user = ApiUser(app, "admin")
    with sessions.begin() as session:
        session.execute(update(User).where(User.id == user.id).values(is_admin=True))
    return ApiUser(app, "admin", is_new=False)


class TestCreation:
    def test_a_new_key_is_201_and_shown_once(self, alice: ApiUser) -> None:
        response = alice.post("/auth/keys/", json={"name": "Nightly report"})
        created = response.json
        assert response.status_code == 201
        assert response.headers["Cache-Control"] == "no-store"
        assert created["scopes"] == ["prompts:read", "prompts:write"]
        limits = ("models", "expires_at", "rate_limit", "monthly_tokens", "used_tokens", "reserved_tokens")
        assert [created[name] for name in (*limits, "last_used_at")] == [None] * 7
        assert (created["name"], created["prefix"]) == ("Nightly report", created["key"][:11])
        (listed,) = alice.get("/auth/keys/").json
        assert listed == {name: value for name, value in created.items() if name != "key"}

    def test_a_scanner_recognises_a_key_by_its_prefix_and_checksum_as_the_guide_says(self, alice: ApiUser) -> None:
        guide = (ROOT / "docs" / "accounts.md").read_text()
        (snippet,) = re.findall(r"```python\n(import re, .*?)```", guide, re.DOTALL)
        names: dict = {}
        exec(snippet, names)  # noqa: S102
        keys = [alice.create_key()["key"] for _ in range(5)]
        assert list(names["find_keys"](f"KEYS={','.join(keys)}\n{keys[0][:-1]}!\npw_{'a' * 49}")) == keys
        assert len(set(keys)) == len(keys)

    def test_only_the_sha_256_of_a_key_is_stored(self, alice: ApiUser, sessions: Sessions) -> None:
        key = alice.create_key()["key"]
        with sessions() as session:
            assert session.scalars(select(ApiKey.key_hash)).one() == hashlib.sha256(key.encode()).digest()
            row = session.execute(text("SELECT api_keys::text FROM api_keys")).scalar_one()
        assert key[11:] not in row

    def test_a_key_is_made_with_scopes_models_an_expiry_a_rate_limit_and_a_budget(self, alice: ApiUser) -> None:
        fields = {
            "scopes": ["keys:write", "prompts:read"],
            "models": ["default"],
            "expires_at": in_hours(1_000),
            "rate_limit": "1/second;100/hour",
            "monthly_tokens": 1_000_000,
        }
        created = alice.create_key(**fields)
        assert {name: created[name] for name in fields} == fields | {"scopes": ["prompts:read", "keys:write"]}

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", ""),
            ("name", " "),
            ("name", "n" * 101),
            ("name", "a\0b"),
            ("name", 5),
            ("scopes", []),
            ("scopes", ["prompts:delete"]),
            ("scopes", "prompts:read"),
            ("models", []),
            ("models", ["gpt-0"]),
            ("expires_at", "2020-01-01T00:00:00Z"),
            ("expires_at", "2099-01-01"),
            ("expires_at", "2099-02-30T00:00:00Z"),
            ("expires_at", "2099-01-01T00:00:00"),
            ("expires_at", 4_102_444_800),
            ("rate_limit", "often"),
            ("rate_limit", "0/second"),
            ("rate_limit", ""),
            ("monthly_tokens", 0),
            ("monthly_tokens", True),
            ("key", "pw_mine"),
        ],
    )
    def test_a_field_that_is_not_valid_is_400_and_named(self, alice: ApiUser, field: str, value: object) -> None:
        problem = assert_problem(alice.post("/auth/keys/", json={"name": "a key", field: value}), 400)
        assert problem["errors"][0]["field"].startswith(field)
        assert alice.get("/auth/keys/").json == []

    def test_an_unknown_model_is_400_with_the_known_ones(self, alice: ApiUser) -> None:
        problem = assert_problem(alice.post("/auth/keys/", json={"name": "a key", "models": ["default", "x"]}), 400)
        assert problem["errors"] == [{"field": "models", "message": "There is no model 'x'. There are: default."}]

    def test_a_user_has_at_most_100_keys_that_are_not_revoked(self, alice: ApiUser, sessions: Sessions) -> None:
        key_id = alice.create_key()["id"]
        rows = [
            {"user_id": alice.id, "name": "n", "key_hash": bytes([i]), "prefix": "p", "scopes": []}
            for i in range(api_keys.MAX_KEYS - 1)
        ]
        with sessions.begin() as session:
            session.execute(insert(ApiKey), rows)
        assert "100" in assert_problem(alice.post("/auth/keys/", json={"name": "one more"}), 409)["detail"]
        alice.delete(f"/auth/keys/{key_id}/")
        alice.create_key()


class TestEscalation:
    """A key makes only keys that may do no more than it may."""

    def test_a_key_with_keys_write_makes_keys_with_its_own_scopes(self, alice: ApiUser) -> None:
        maker = alice.with_key(scopes=["prompts:read", "keys:write"])
        made = alice.with_key(maker.create_key(scopes=["prompts:read"])["key"])
        assert made.get("/prompts/").status_code == 200
        assert [len(user.get("/auth/keys/").json) for user in (alice, maker)] == [2, 2]

    def test_keys_write_is_never_given_by_default(self, alice: ApiUser) -> None:
        assert_problem(alice.with_key().post("/auth/keys/", json={"name": "another"}), 403)

    @pytest.mark.parametrize("scope", ["prompts:write", "admin"])
    def test_a_key_makes_no_key_with_a_scope_that_it_lacks(self, alice: ApiUser, scope: str) -> None:
        maker = alice.with_key(scopes=["prompts:read", "keys:write"])
        response = maker.post("/auth/keys/", json={"name": "more", "scopes": ["prompts:read", scope]})
        assert_problem(response, 403)
        assert response.headers["WWW-Authenticate"] == f'Bearer error="insufficient_scope", scope="{scope}"'

    def test_a_key_gives_the_default_scopes_only_if_it_has_them(self, alice: ApiUser) -> None:
        assert_problem(alice.with_key(scopes=["keys:write"]).post("/auth/keys/", json={"name": "another"}), 403)

    @pytest.mark.parametrize(
        "restriction",
        [
            {"models": ["default"]},
            {"expires_at": in_hours(1_000)},
            {"rate_limit": "100/second"},
            {"monthly_tokens": 10},
        ],
        ids=lambda restriction: next(iter(restriction)),
    )
    def test_a_restricted_key_makes_no_keys_but_lists_and_revokes(self, alice: ApiUser, restriction: dict) -> None:
        maker = alice.with_key(scopes=["prompts:read", "keys:write"], **restriction)
        assert_problem(maker.post("/auth/keys/", json={"name": "n", "scopes": ["prompts:read"]} | restriction), 403)
        (listed,) = maker.get("/auth/keys/").json
        assert maker.delete(f"/auth/keys/{listed['id']}/").status_code == 204

    def test_only_admins_make_keys_with_the_scope_admin(self, alice: ApiUser, admin: ApiUser) -> None:
        assert_problem(alice.post("/auth/keys/", json={"name": "n", "scopes": ["admin"]}), 403)
        assert admin.create_key(scopes=["admin"])["scopes"] == ["admin"]
        assert_problem(admin.with_key(scopes=["keys:write"]).post("/auth/keys/", json={"name": "n"}), 403)

    def test_a_revoked_key_makes_no_key_even_where_it_is_still_cached(
        self, alice: ApiUser, sessions: Sessions, services: Services
    ) -> None:
        maker = alice.with_key(scopes=["prompts:read", "keys:write"])
        services.relay._ended_logins.stop()
        (listed,) = maker.get("/auth/keys/").json  # the key is cached from here on
        with sessions.begin() as session:
            api_keys.revoke(session, listed["id"])
        response = maker.post("/auth/keys/", json={"name": "n", "scopes": ["prompts:read"]})
        assert_problem(response, 401)
        assert alice.get("/auth/keys/").json == []


class TestAudit:
    def test_making_and_revoking_keys_is_in_the_audit_trail(self, alice: ApiUser, sessions: Sessions) -> None:
        maker_key = alice.create_key(scopes=["keys:write"])
        maker = alice.with_key(maker_key["key"])
        made = maker.create_key(scopes=["keys:write"], name="Payroll of Acme")
        alice.delete(f"/auth/keys/{made['id']}/")
        with sessions() as session:
            entries = session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
        assert [(each.action, each.key_id, each.details["key_id"]) for each in entries] == [
            ("key.created", None, maker_key["id"]),
            ("key.created", maker_key["id"], made["id"]),
            ("key.revoked", None, made["id"]),
        ]
        assert {(each.actor_id, each.user_id) for each in entries} == {(alice.id, alice.id)}
        assert not any("Payroll" in str(each.details) or made["key"] in str(each.details) for each in entries)
