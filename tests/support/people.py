"""Users with access tokens, inserted into the database: 10,000 registrations would take minutes."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import jwt
from sqlalchemy import insert

from shared.db.engine import make_engine
from shared.db.models import TokenFamily, User
from shared.settings import Settings

_LIFETIME = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Person:
    """A user who is logged in."""

    id: int
    username: str
    token: str


def make(settings: Settings, count: int, prefix: str) -> list[Person]:
    """Create `count` users, each with a login."""
    engine = make_engine(settings, application_name="benchmark")
    names = [f"{prefix}-{i}" for i in range(count)]
    with engine.begin() as connection:
        returned = insert(User).returning(User.id, sort_by_parameter_order=True)
        ids = connection.scalars(returned, [{"username": name, "password_hash": "-"} for name in names]).all()
        families = [uuid4() for _ in ids]
        until = datetime.now(UTC) + _LIFETIME
        rows = zip(families, ids, strict=True)
        connection.execute(
            insert(TokenFamily),
            [{"id": family, "user_id": user, "current": uuid4(), "expires_at": until} for family, user in rows],
        )
    engine.dispose()
    secret = settings.jwt_secret_key.get_secret_value()
    now = int(time.time())
    claims = {"type": "access", "fresh": False, "iat": now, "nbf": now, "exp": now + int(_LIFETIME.total_seconds())}
    return [
        Person(user, name, jwt.encode(claims | {"sub": str(user), "fam": str(family), "jti": str(uuid4())}, secret))
        for user, name, family in zip(ids, names, families, strict=True)
    ]
