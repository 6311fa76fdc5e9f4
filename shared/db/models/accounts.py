"""Users, their logins and API keys, what they used, and what admins did."""

from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Identity, Index, Numeric, Text, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.db.models.base import Base

#: No password has this hash.
NO_PASSWORD = "!"  # noqa: S105  # nosec B105


class User(Base):
    """A user. `seq` is the newest number of their feed (see `shared/prompts/feed.py`)."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    username: Mapped[str] = mapped_column(unique=True)
    #: NO_PASSWORD for users who sign in with an identity provider only.
    password_hash: Mapped[str]
    seq: Mapped[int] = mapped_column(server_default=text("0"))
    #: The name of the embedder whose vectors are searched; NULL before the first vector.
    embedder: Mapped[str | None]
    #: Incremented when segments or stored vectors have changed, so that indexes must be reloaded.
    index_version: Mapped[int] = mapped_column(server_default=text("0"))
    #: Whether some of the user's prompts may have a `vector_due_at`. False only if none has.
    vectors_missing: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    is_admin: Mapped[bool] = mapped_column(server_default=text("false"))
    #: Whether the user sees what admins see, and changes nothing.
    is_viewer: Mapped[bool] = mapped_column(server_default=text("false"))
    #: When one of these changed last, so that each process forgets what it was.
    admin_changed_at: Mapped[datetime | None]
    #: When the account was deleted: nothing of it is shown any more, and its rows are about to be deleted.
    deleted_at: Mapped[datetime | None]
    #: It was registered before names that differ only in case were refused, and another user has that name.
    shares_name: Mapped[bool] = mapped_column(server_default=text("false"))

    __table_args__ = (
        Index(
            "users_by_folded_name",
            text('lower(username COLLATE "C")'),
            unique=True,
            postgresql_where=text("NOT shares_name"),
        ),
        Index("users_deleted", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
        Index("users_admin_changed", "admin_changed_at", postgresql_where=text("admin_changed_at IS NOT NULL")),
    )

    @property
    def has_password(self) -> bool:
        """Whether the user can log in with a password."""
        return self.password_hash != NO_PASSWORD


class LinkedIdentity(Base):
    """A user's identity at an identity provider: who has this issuer and subject there is this user."""

    __tablename__ = "identities"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    issuer: Mapped[str]
    subject: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("issuer", "subject", name="identities_issuer_subject"),
        UniqueConstraint("user_id", "issuer", name="identities_user_issuer"),
    )


class SignInCode(Base):
    """A single-use code for an identity that the provider has confirmed: see `shared/accounts/sign_in_codes.py`."""

    __tablename__ = "sign_in_codes"

    #: SHA-256 of the code, which itself is not stored.
    code_hash: Mapped[bytes] = mapped_column(primary_key=True)
    #: By PKCE (RFC 7636), S256: only who knows its verifier may use the code.
    challenge: Mapped[str]
    issuer: Mapped[str]
    subject: Mapped[str]
    #: What the provider says: the name for a new account, and whether the user is an admin; NULL if it says nothing.
    username: Mapped[str | None]
    is_admin: Mapped[bool | None]
    #: Whether the user had to authenticate for this code.
    reauthenticated: Mapped[bool]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class TokenFamily(Base):
    """A login: a chain of refresh tokens. Only the newest, `current`, may be used."""

    __tablename__ = "token_families"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    current: Mapped[UUID]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    revoked_at: Mapped[datetime | None]
    #: When it began, when it was last refreshed, and from where. NULL if a release before these columns began it.
    created_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime | None]
    address: Mapped[str | None]
    user_agent: Mapped[str | None]

    __table_args__ = (Index("token_families_ended", "revoked_at", postgresql_where=text("revoked_at IS NOT NULL")),)


class LoginBlock(Base):
    """A block of addresses from which a user has logged in (see `api/auth/failed_logins.py`)."""

    __tablename__ = "login_blocks"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    #: As `192.0.2.0/24`.
    address_block: Mapped[str] = mapped_column(primary_key=True)
    last_login_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Scope(StrEnum):
    """What an API key may do. A login may do everything that its user may."""

    PROMPTS_READ = "prompts:read"  # read prompts, usage, webhooks, the account
    PROMPTS_WRITE = "prompts:write"  # submit, cancel, retry and delete prompts; change webhooks
    KEYS_WRITE = "keys:write"  # list, make and revoke keys
    ADMIN_READ = "admin:read"  # what admins may see, if the user is one, or a viewer
    ADMIN = "admin"  # what admins may do, if the user is one


DEFAULT_SCOPES = (Scope.PROMPTS_READ, Scope.PROMPTS_WRITE)


class ApiKey(Base):
    """An API key of a user. Revoked ones stay, because the usage names them."""

    __tablename__ = "api_keys"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str]
    #: SHA-256 of the key, which itself is not stored.
    key_hash: Mapped[bytes] = mapped_column(unique=True)
    #: The key's first characters, by which people recognise it.
    prefix: Mapped[str]
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    #: The model routes that it may use; NULL for all.
    models: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    #: As PROMPT_RATE_LIMIT, in addition to it.
    rate_limit: Mapped[str | None]
    #: How many tokens its prompts may use in a calendar month (UTC).
    monthly_tokens: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    #: Written at most once a minute.
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    __table_args__ = (Index("api_keys_revoked", "revoked_at", postgresql_where=text("revoked_at IS NOT NULL")),)


class Usage(Base):
    """The ledger: what a user's attempts that ended on a day (UTC) used, by API key and model route."""

    __tablename__ = "usage"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    #: 0 for logins.
    key_id: Mapped[int] = mapped_column(primary_key=True)
    route: Mapped[str] = mapped_column(primary_key=True)
    #: How many prompts finished: completed, failed or cancelled.
    prompts: Mapped[int] = mapped_column(server_default=text("0"))
    prompt_tokens: Mapped[int] = mapped_column(server_default=text("0"))
    completion_tokens: Mapped[int] = mapped_column(server_default=text("0"))
    #: At the route's prices of that time, in their currency.
    cost: Mapped[Decimal] = mapped_column(Numeric, server_default=text("0"))

    __table_args__ = (Index("usage_by_day", "day"),)


class AbandonedAttempt(Base):
    """An attempt that ran when its prompt was cancelled or deleted. Until its worker has recorded what it used, or its
    lease lapses, it keeps what the prompt reserved.
    """

    __tablename__ = "abandoned_attempts"

    prompt_id: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    #: 0 for logins.
    key_id: Mapped[int]
    reserved_tokens: Mapped[int]
    until: Mapped[datetime]


class AuditEntry(Base):
    """An act of an admin, or a change of an account's security. Triggers refuse to change or delete entries.

    Users are named by their ids only, which are not foreign keys: entries outlive users, the names of users do not.
    """

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: The user who acted, with which key; NULL on the command line, and for a login.
    actor_id: Mapped[int | None]
    key_id: Mapped[int | None]
    #: As `user.deleted`.
    action: Mapped[str]
    #: The user whose account, key or prompts it was.
    user_id: Mapped[int | None]
    details: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    #: The client's address, or `command line`.
    address: Mapped[str]
    request_id: Mapped[str | None]

    __table_args__ = (Index("audit_of_user", "user_id", "id"),)
