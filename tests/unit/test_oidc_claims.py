"""What a provider's claims mean: who may sign in, by which name, and whether as an admin."""

from typing import Any

import pytest

from api.auth.oidc.claims import ClaimRules
from api.auth.oidc.errors import NotPermittedError
from shared.settings import Settings

VERIFIED = {"email": "dora@example.com", "email_verified": True}
DOMAIN = {"oidc_allowed_domains": ("example.com",)}
GROUP = {"oidc_allowed_groups": ("staff", "guests")}


def settings(**changes: Any) -> Settings:
    required = {"database_url": "postgresql://u:p@h/d", "redis_url": "redis://h/0", "jwt_secret_key": "k" * 32}
    return Settings(_env_file=None, **required).model_copy(update=changes)


def apply(claims: dict[str, Any], **changes: Any) -> Any:
    return ClaimRules(settings(**changes)).apply({"sub": "248"} | claims, reauthenticated=False)


@pytest.mark.parametrize(
    ("changes", "claims", "may"),
    [
        ({}, {}, True),
        (DOMAIN, VERIFIED, True),
        (DOMAIN, VERIFIED | {"email": "dora@EXAMPLE.com"}, True),
        (DOMAIN, VERIFIED | {"email": "dora@sub.example.com"}, False),
        (DOMAIN, VERIFIED | {"email": "dora@example.com@evil.example"}, False),
        (DOMAIN, VERIFIED | {"email": "example.com.evil.example"}, False),
        (DOMAIN, VERIFIED | {"email": ["dora@example.com"]}, False),
        (DOMAIN, VERIFIED | {"email_verified": False}, False),
        (DOMAIN, VERIFIED | {"email_verified": "true"}, False),
        (DOMAIN, {"email": "dora@example.com"}, False),
        (DOMAIN, {}, False),
        (GROUP, {"groups": ["other", "guests"]}, True),
        (GROUP, {"groups": "staff"}, True),
        (GROUP, {"groups": "staff guests"}, False),
        (GROUP, {"groups": ["Staff"]}, False),
        (GROUP, {"groups": [["staff"]]}, False),
        (GROUP, {"groups": {"staff": True}}, False),
        (GROUP, {"groups": ["staff"] * 10_001}, False),
        (GROUP, {}, False),
        (GROUP | {"oidc_groups_claim": "roles"}, {"groups": ["staff"]}, False),
        (GROUP | {"oidc_groups_claim": "roles"}, {"roles": ["staff"]}, True),
        (GROUP | DOMAIN, {"groups": ["staff"]}, False),
        (GROUP | DOMAIN, VERIFIED | {"groups": ["staff"]}, True),
    ],
)
def test_who_may_sign_in(changes: dict[str, Any], claims: dict[str, Any], may: bool) -> None:
    if may:
        assert apply(claims, **changes).subject == "248"
    else:
        with pytest.raises(NotPermittedError):
            apply(claims, **changes)


@pytest.mark.parametrize(
    ("claim", "username"),
    [
        ("alice", "alice"),
        ("Alice.B_c-1", "Alice.B_c-1"),
        ("alice@example.com", "alice"),
        ("Dora Müller", "Dora-Muller"),
        ("ﬁne", "fine"),
        ("DOMAIN\\alice", "DOMAIN-alice"),
        ("alice\0", "alice"),
        ("李", None),
        ("..", None),
        ("#1", "1"),
        ("", None),
        ("@example.com", None),
        (None, None),
        (7, None),
        (["alice"], None),
        ("a" * 500, "a" * 150),
    ],
)
def test_the_username_of_a_claim(claim: object, username: str | None) -> None:
    assert apply({"preferred_username": claim}).username == username


def test_another_claim_may_be_the_username() -> None:
    assert apply({"email": "dora@example.com"}, oidc_username_claim="email").username == "dora"


@pytest.mark.parametrize(
    ("group", "claims", "is_admin"),
    [
        ("", {"groups": ["admins"]}, None),
        ("admins", {"groups": ["staff", "admins"]}, True),
        ("admins", {"groups": ["staff"]}, False),
        ("admins", {}, False),
    ],
)
def test_the_group_of_admins(group: str, claims: dict[str, Any], is_admin: bool | None) -> None:
    assert apply(claims, oidc_admin_group=group).is_admin is is_admin


def test_only_the_claims_that_are_read_are_needed() -> None:
    assert ClaimRules(settings()).needed == ("preferred_username",)
    everything = ClaimRules(settings(**DOMAIN, **GROUP, oidc_admin_group="admins")).needed
    assert everything == ("preferred_username", "email", "email_verified", "groups")


@pytest.mark.parametrize(
    ("changes", "creates"),
    [
        ({"registration": True}, True),
        ({"registration": False}, False),
        ({"registration": None, "app_env": "prod"}, False),
        ({"registration": False, "oidc_allowed_domains": ("example.com",)}, True),
        ({"registration": False, "oidc_allowed_groups": ("staff",)}, True),
        ({"registration": False, "oidc_create_accounts": True}, True),
        ({"registration": True, "oidc_create_accounts": False}, False),
    ],
    ids=str,
)
def test_whether_the_first_sign_in_creates_an_account(changes: dict[str, Any], creates: bool) -> None:
    assert settings(**changes).oidc_creates_accounts is creates
