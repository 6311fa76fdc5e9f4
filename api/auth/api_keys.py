"""API keys as callers send them: their form, their verification, and who may create which.

A key is `pw_`, 43 digits in base 62 of 256 random bits, and 6 digits of the CRC-32 of those 43. So a scanner of
repositories recognises a key without asking. The service does not use the checksum: a wrong key is looked up as any
other.
"""

import math
import secrets
import string
import zlib
from collections.abc import Collection

from sqlalchemy import Engine

from api.auth.principal import KeyGrant, Principal
from shared.accounts import api_keys
from shared.db.models import Scope
from shared.errors import InsufficientScopeError, InvalidTokenError, NotAllowedError

PREFIX = "pw_"
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_BITS, _RANDOM_DIGITS, _CHECKSUM_DIGITS = 256, 43, 6

RESTRICTED = "An API key with models, an expiry, a rate limit or a budget of its own may not create other keys."


def generate() -> str:
    """A new key."""
    random = _in_base_62(secrets.randbits(_BITS), _RANDOM_DIGITS)
    return PREFIX + random + _in_base_62(zlib.crc32(random.encode()), _CHECKSUM_DIGITS)


def authenticate(engine: Engine, key: str) -> Principal:
    """The caller with this key.

    Raises:
        InvalidTokenError: the key is wrong, revoked or expired. The caller does not learn which.
    """
    with engine.connect() as connection:
        found = api_keys.find(connection, key)
    if found is None:
        raise InvalidTokenError("The API key is wrong, revoked or expired.")
    models = None if found.models is None else frozenset(found.models)
    grant = KeyGrant(found.id, frozenset(found.scopes), models, found.rate_limit, found.monthly_tokens)
    expires_at = math.inf if found.expires_at is None else found.expires_at.timestamp()
    return Principal(found.user_id, found.username, None, expires_at, found.is_admin, grant, found.is_viewer)


def check_model(key: KeyGrant | None, route: str) -> None:
    """Raise NotAllowedError if the caller's key may not use this model route."""
    if key is not None and key.models is not None and route not in key.models:
        raise NotAllowedError(f"This API key may not use the model {route}.")


def check_may_create(principal: Principal, scopes: Collection[Scope]) -> None:
    """Check that the caller may make a key with these scopes, which must not allow more than the caller's own.

    Raises:
        NotAllowedError: the caller's key has restrictions, which a new key would not have.
        InsufficientScopeError: the caller lacks one of the scopes.
    """
    key = principal.key
    if key is not None:
        restrictions = (key.models, key.rate_limit, key.monthly_tokens)
        if principal.expires_at != math.inf or any(each is not None for each in restrictions):
            raise NotAllowedError(RESTRICTED)
    for scope in scopes:
        if not principal.has_scope(scope):
            raise InsufficientScopeError(scope)


def _in_base_62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
