"""What admins see and change: users, API keys, usage, the queue, failures, and the audit trail.

Every change is recorded in the audit trail, in its own transaction, and every view (`api/auth/admin_views.py`).
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from flask import Response, jsonify
from flask_openapi3 import Tag
from sqlalchemy import Engine

from api.auth.principal import current_actor, current_principal
from api.auth.tokens import Authenticator
from api.http import admin_schemas as schemas
from api.http.admin_blueprint import admin_blueprint
from api.http.admin_schemas import EntriesQuery, FailuresQuery, UserChange, UserPath, UsersQuery
from api.http.fields import MAX_ID
from api.http.key_schemas import KeyPath
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import Responses, empty_response, error_responses, json_response
from api.http.pages import decode_before, older_page
from api.http.usage_schemas import AdminUsageQuery, UsageReport, usage_report
from shared.accounts import api_keys, audit, deletion, logins, overview, usage, users
from shared.accounts.deletion import DeletedAccount
from shared.accounts.usage import UsageBy
from shared.db.engine import Sessions
from shared.errors import KeyNotFoundError, OwnAccountError, UserNotFoundError
from shared.prompts import overview as prompts_overview

_NO_USER, _OWN = UserNotFoundError(), OwnAccountError()
_SHOWN_USER = json_response(schemas.AdminUser, "The user.", "admin user")

USERS: Responses = {
    200: json_response([schemas.AdminUser], "A page, the newest first.", "admin users", headers=("Link",))
}
USER: Responses = {200: _SHOWN_USER, **error_responses(_NO_USER)}
CHANGE_USER: Responses = {200: _SHOWN_USER, **error_responses(413, 415, _NO_USER, _OWN)}
DELETE_USER: Responses = {204: empty_response("The account is deleted."), **error_responses(_NO_USER, _OWN)}
END_LOGINS: Responses = {204: empty_response("All logins have ended."), **error_responses(_NO_USER)}
KEYS: Responses = {200: json_response([schemas.AdminKey], "A page, the newest first.", "admin keys", headers=("Link",))}
REVOKE_KEY: Responses = {204: empty_response("The key is revoked."), **error_responses(KeyNotFoundError())}
USAGE: Responses = {200: json_response(UsageReport, "What was used.", "admin usage")}
QUEUE: Responses = {200: json_response(schemas.QueueState, "The queue.", "admin queue")}
FAILURES: Responses = {
    200: json_response([schemas.FailuresOfError], "The most frequent errors first.", "admin failures")
}
AUDIT: Responses = {
    200: json_response([schemas.AuditedAct], "A page, the newest first.", "admin audit", headers=("Link",))
}


class AdminRoutes:
    """Views for admins.

    Args:
        announce_deletion: Called with an account after the commit that deleted it.
    """

    def __init__(
        self,
        sessions: Sessions,
        engine: Engine,
        authenticator: Authenticator,
        announce_deletion: Callable[[DeletedAccount], None],
    ) -> None:
        self._sessions = sessions
        self._engine = engine
        self._authenticator = authenticator
        self._announce_deletion = announce_deletion

    def blueprint(self) -> Blueprint:
        tag = Tag(name="Admin", description="All users' accounts, for admins. Texts of prompts are not shown.")
        bp = admin_blueprint("admin", __name__, self._authenticator, self._sessions, tag)
        bp.get("/users/", operation_id="listUsers", responses=USERS)(self.users)
        bp.get("/users/<int:user_id>/", operation_id="getUser", responses=USER)(self.user)
        bp.patch("/users/<int:user_id>/", operation_id="changeUser", responses=CHANGE_USER)(self.change_user)
        bp.delete("/users/<int:user_id>/", operation_id="deleteUser", responses=DELETE_USER)(self.delete_user)
        end_logins = bp.post("/users/<int:user_id>/end-logins/", operation_id="endLoginsOfUser", responses=END_LOGINS)
        end_logins(self.end_logins)
        bp.get("/keys/", operation_id="listAllKeys", responses=KEYS)(self.keys)
        bp.delete("/keys/<int:key_id>/", operation_id="revokeAnyKey", responses=REVOKE_KEY)(self.revoke_key)
        bp.get("/usage/", operation_id="getAllUsage", responses=USAGE)(self.usage)
        bp.get("/queue/", operation_id="getQueue", responses=QUEUE)(self.queue)
        bp.get("/failures/", operation_id="listFailures", responses=FAILURES)(self.failures)
        bp.get("/audit/", operation_id="listAudit", responses=AUDIT)(self.audit)
        return bp

    def users(self, query: UsersQuery) -> Response:
        """List the users, the newest first, with what they used in this month."""
        if query.username is not None:
            return jsonify(self._named(query.username))
        with self._engine.connect() as connection:
            found = overview.list_users(connection, limit=query.limit + 1, before=decode_before(query.cursor) or MAX_ID)
        return older_page("/admin/users/", [schemas.admin_user(user) for user in found], query.limit)

    def user(self, path: UserPath) -> Response:
        """Get a user."""
        return self._show(path.user_id)

    def change_user(self, path: UserPath, body: UserChange) -> Response:
        """Make a user an admin or a viewer, or no longer one.

        A viewer sees what admins see, and changes nothing. It takes effect at once, in every process, also for the
        user's API keys. Admins cannot change themselves, so that one is always left.
        """
        _refuse_own(path.user_id)
        with self._sessions.begin() as session:
            user = users.lock_for_admin(session, path.user_id, current_principal().id)
            for act in users.set_roles(user, is_admin=body.is_admin, is_viewer=body.is_viewer):
                audit.record(session, current_actor(), act, user.id)
        self._authenticator.announce_logout(path.user_id)
        return self._show(path.user_id)

    def delete_user(self, path: UserPath) -> tuple[str, int]:
        """Delete an account with all of its prompts, API keys and webhooks."""
        _refuse_own(path.user_id)
        with self._sessions.begin() as session:
            deleted = deletion.delete(session, path.user_id, current_actor())
        self._announce_deletion(deleted)
        return "", HTTPStatus.NO_CONTENT

    def end_logins(self, path: UserPath) -> tuple[str, int]:
        """End all logins of a user. Sockets and streams close. API keys stay."""
        with self._sessions.begin() as session:
            user = users.lock(session, path.user_id)
            logins.end_all(session, user.id)
            audit.record(session, current_actor(), "logins.ended", user.id)
        self._authenticator.announce_logout(path.user_id)
        return "", HTTPStatus.NO_CONTENT

    def keys(self, query: EntriesQuery) -> Response:
        """List API keys, the newest first, also revoked ones, with what they used in this month."""
        with self._engine.connect() as connection:
            found = overview.list_keys(
                connection, limit=query.limit + 1, before=decode_before(query.cursor) or MAX_ID, user_id=query.user
            )
        return older_page("/admin/keys/", [schemas.admin_key(key) for key in found], query.limit, user=query.user)

    def revoke_key(self, path: KeyPath) -> tuple[str, int]:
        """Revoke an API key of any user."""
        with self._sessions.begin() as session:
            user_id = api_keys.revoke(session, path.key_id)
            audit.record(session, current_actor(), "key.revoked", user_id, key_id=path.key_id)
        self._authenticator.announce_logout(user_id)
        return "", HTTPStatus.NO_CONTENT

    def usage(self, query: AdminUsageQuery) -> Response:
        """Get what all users used, by day, model, API key or user, as `GET /usage/` counts it."""
        by, (since, until) = UsageBy(query.by), query.days()
        with self._engine.connect() as connection:
            report = usage.report(connection, by, since, until)
        return jsonify(usage_report(by, since, until, report))

    def queue(self) -> dict[str, Any]:
        """Show what waits and what runs, by model and by user, and the state of the providers."""
        with self._engine.connect() as connection:
            load = prompts_overview.load(connection)
            running = prompts_overview.running(connection)
            providers = prompts_overview.providers(connection)
        return {
            "models": [schemas.queue_load(each) for each in load if each.user_id is None],
            "users": [schemas.queue_load(each) for each in load if each.user_id is not None],
            "running": [schemas.running_prompt(each) for each in running],
            "providers": [schemas.provider(each) for each in providers],
        }

    def failures(self, query: FailuresQuery) -> Response:
        """Group failures by their error: the newest 10,000, as far back as the feed is kept.

        A prompt that failed again after a retry counts twice. Providers' errors may quote a prompt.
        """
        since = query.since or datetime.now(UTC) - timedelta(days=1)
        with self._engine.connect() as connection:
            groups = prompts_overview.failures(connection, since)
        return jsonify([schemas.failures_of_error(group) for group in groups])

    def audit(self, query: EntriesQuery) -> Response:
        """List who did what to whom, when and from where, the newest first. Entries cannot be changed or deleted."""
        with self._engine.connect() as connection:
            found = audit.list_entries(
                connection, limit=query.limit + 1, before=decode_before(query.cursor) or MAX_ID, user_id=query.user
            )
        return older_page("/admin/audit/", [schemas.audited_act(each) for each in found], query.limit, user=query.user)

    def _named(self, username: str) -> list[dict[str, Any]]:
        with self._sessions() as session:
            user = users.find(session, username) if "\0" not in username else None
            return [] if user is None else [schemas.admin_user(overview.get_user(session, user.id))]

    def _show(self, user_id: int) -> Response:
        with self._engine.connect() as connection:
            return jsonify(schemas.admin_user(overview.get_user(connection, user_id)))


def _refuse_own(user_id: int) -> None:
    """Raise OwnAccountError if the caller is this user."""
    if user_id == current_principal().id:
        raise OwnAccountError
