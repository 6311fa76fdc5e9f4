"""Who has the scope `admin`."""

from uuid import UUID

import pytest

from api.auth.principal import KeyGrant, Principal
from shared.db.models import Scope

LOGIN = None
ADMIN_KEY, READING_KEY = KeyGrant(7, frozenset({Scope.ADMIN})), KeyGrant(8, frozenset({Scope.PROMPTS_READ}))


@pytest.mark.parametrize(
    ("key", "is_admin", "is_allowed"),
    [
        (LOGIN, True, True),
        (LOGIN, False, False),
        (ADMIN_KEY, True, True),
        (ADMIN_KEY, False, False),  # its user was an admin when the key was made
        (READING_KEY, True, False),
    ],
)
def test_only_logins_and_admin_keys_of_admins_have_the_scope_admin(
    key: KeyGrant | None, *, is_admin: bool, is_allowed: bool
) -> None:
    principal = Principal(1, "alice", UUID(int=1), float("inf"), is_admin, key)
    assert principal.has_scope(Scope.ADMIN) == is_allowed
