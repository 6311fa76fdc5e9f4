"""The caller's own account: who it is, its password, its logins, its export and its deletion."""

from collections.abc import Callable, Generator
from http import HTTPStatus
from itertools import chain
from typing import Any

from flask import Response, jsonify, request
from flask_openapi3 import Tag
from sqlalchemy.orm import Session

from api.auth.failed_logins import FAILED_LOGINS_PER_USER_AND_BLOCK
from api.auth.password_check import PasswordCheck
from api.auth.permissions import require_login, require_prompts
from api.auth.principal import current_actor, current_principal
from api.auth.tokens import Authenticator
from api.http.account_schemas import (
    Account,
    AccountDeletion,
    LoginEntry,
    LoginPath,
    PasswordChange,
    account_resource,
    login_entry,
)
from api.http.event_stream import unbuffered
from api.http.export import MIMETYPE, PromptExport
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.prompt_examples import EXPORT
from api.http.openapi.responses import (
    TOO_MANY_WAITS,
    Responses,
    empty_response,
    error_responses,
    json_response,
    rate_limited,
)
from api.intake.user_slots import UserSlots
from api.server.threadpool import offload
from shared.accounts import audit, deletion, identities, logins, sign_in_codes, users
from shared.accounts.deletion import DeletedAccount
from shared.db.engine import Sessions
from shared.db.models import Scope, User
from shared.errors import (
    InsufficientScopeError,
    InvalidCredentialsError,
    InvalidSignInCodeError,
    LoginNotFoundError,
    LoginRequiredError,
    PromptwireError,
    UserNotFoundError,
    WrongPasswordError,
)
from shared.settings import Settings

_FOR_READERS = error_responses(InsufficientScopeError(Scope.PROMPTS_READ))
_FOR_LOGINS = error_responses(LoginRequiredError())


def _for_the_owner(field: str, *others: PromptwireError) -> Responses:
    """The errors of what needs the password, which is in this field."""
    errors = (WrongPasswordError(field), *others, LoginRequiredError(), rate_limited(FAILED_LOGINS_PER_USER_AND_BLOCK))
    return error_responses(400, *errors, 413, 415)


SHOW: Responses = {200: json_response(Account, "The account.", "account", "account by key"), **_FOR_READERS}
PASSWORD: Responses = {
    204: empty_response("The password is changed, and all other logins have ended."),
    **_for_the_owner("current_password"),
}
LOGINS: Responses = {200: json_response([LoginEntry], "The logins.", "logins"), **_FOR_LOGINS}
END_LOGIN: Responses = {
    204: empty_response("The login has ended."),
    **error_responses(LoginNotFoundError(), LoginRequiredError()),
}
EXPORT_PROMPTS: Responses = {
    # OpenAPI 3.1 cannot describe the lines of a stream.
    200: empty_response("A prompt a line, oldest first.") | {"content": {MIMETYPE: {"example": EXPORT}}},
    **error_responses(TOO_MANY_WAITS),
    **_FOR_READERS,
}
DELETE: Responses = {
    204: empty_response("The account is deleted."),
    **_for_the_owner("password", InvalidSignInCodeError()),
}

_READ_ENDPOINTS = ("account.show", "account.export")


class AccountRoutes:
    """Views of the caller's account.

    Args:
        slots: Limits the streams and waiting requests of a user.
        announce_deletion: Called with an account after the commit that deleted it.
    """

    def __init__(
        self,
        settings: Settings,
        sessions: Sessions,
        authenticator: Authenticator,
        password_check: PasswordCheck,
        export: PromptExport,
        slots: UserSlots,
        announce_deletion: Callable[[DeletedAccount], None],
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._authenticator = authenticator
        self._password_check = password_check
        self._export = export
        self._slots = slots
        self._announce_deletion = announce_deletion

    def blueprint(self) -> Blueprint:
        bp = Blueprint(
            "account",
            __name__,
            url_prefix="/account",
            abp_tags=[Tag(name="Account", description="The caller's own account.")],
            abp_security=[{"bearer": []}],
            abp_responses=error_responses(400, 401, 500, 503),
        )
        bp.before_request(self._authenticator.authenticate_request)
        bp.before_request(_authorize)
        bp.get("/", operation_id="getAccount", responses=SHOW)(self.show)
        bp.delete("/", operation_id="deleteAccount", responses=DELETE)(self.delete)
        bp.post("/password/", operation_id="changePassword", responses=PASSWORD)(self.change_password)
        bp.get("/logins/", operation_id="listLogins", responses=LOGINS)(self.logins)
        bp.delete("/logins/<uuid:login_id>/", operation_id="endLogin", responses=END_LOGIN)(self.end_login)
        bp.get("/export/", operation_id="exportPrompts", responses=EXPORT_PROMPTS)(self.export)
        return bp

    def show(self) -> dict[str, Any]:
        """Get the account, how the caller has authenticated, and the limits of a user."""
        return account_resource(self._password_check.caller(), current_principal().key, self._settings)

    def change_password(self, body: PasswordChange) -> tuple[str, int]:
        """Change the password.

        All other logins end, with their sockets and streams; the caller's own stays. API keys stay, too: revoke those
        that others may know. A wrong `current_password` counts as a failed login, with the same limits.
        """
        principal = current_principal()
        with self._password_check.verified(body.current_password, field="current_password") as user:
            password_hash = offload(users.hash_password, body.password)
            with self._sessions.begin() as session:
                if not users.change_password(session, user, password_hash, keep=principal.family):
                    raise InvalidCredentialsError
                audit.record(session, current_actor(), "password.changed", user.id)
        self._authenticator.announce_logout(principal.id)
        return "", HTTPStatus.NO_CONTENT

    def logins(self) -> Response:
        """List the logins that have not ended, the last used first.

        At most 100. Address and user agent are those of the login, or of its last refresh; an access token is refreshed
        every 15 minutes by default.
        """
        principal = current_principal()
        with self._sessions() as session:
            live = logins.list_live(session, principal.id)
        return jsonify([login_entry(each, is_current=each.id == principal.family) for each in live])

    def end_login(self, path: LoginPath) -> tuple[str, int]:
        """End a login, with its sockets and streams. All of its tokens become invalid."""
        principal = current_principal()
        with self._sessions.begin() as session:
            logins.end_one(session, principal.id, path.login_id)
            audit.record(session, current_actor(), "login.ended", principal.id)
        self._authenticator.announce_logout(principal.id)
        return "", HTTPStatus.NO_CONTENT

    def export(self) -> Response:
        """Export all prompts of the caller, oldest first, each with everything that is known of it.

        The response is a stream of JSON Lines. It counts as a waiting stream against `USER_WAIT_LIMIT`. Prompts that
        are submitted meanwhile are left out. If the service is interrupted, the response ends without its last chunk,
        which HTTP clients report: it is not complete then.
        """
        lines = self._export_lines()
        first = next(lines, b"")  # so that an error is still a response
        response = Response(chain((first,), lines) if first else b"", mimetype=MIMETYPE)
        response.call_on_close(lines.close)
        response.headers["Content-Disposition"] = "attachment; filename=prompts.jsonl"
        return unbuffered(response)

    def delete(self, body: AccountDeletion) -> tuple[str, int]:
        """Delete the account with everything that belongs to it, for good.

        From now on its logins, tokens and API keys are refused, its sockets and streams end, and its name is free.
        Prompts, vectors, events, keys, webhooks and usage are deleted within a day, usually within a minute. A wrong
        password counts as a failed login, with the same limits. Users without a password send the code of a sign-in
        that was started with `reauthenticate`.
        """
        if body.password is None:
            deleted, user = self._delete_after_sign_in(str(body.code), str(body.code_verifier))
        else:
            checked = self._password_check.verified(body.password, field="password")
            with checked as user, self._sessions.begin() as session:
                deleted = _delete(session, user)
        self._announce_deletion(deleted)
        self._password_check.forget(user)
        return "", HTTPStatus.NO_CONTENT

    def _delete_after_sign_in(self, code: str, verifier: str) -> tuple[DeletedAccount, User]:
        """Delete the account, if this is the code of a sign-in for which its user had to authenticate."""
        user = self._password_check.caller()
        with self._sessions.begin() as session:
            identity = sign_in_codes.redeem(session, code, verifier)
            if not identity.reauthenticated or not identities.is_owner(session, user.id, identity):
                raise InvalidSignInCodeError
            return deletion.delete(session, user.id, current_actor()), user

    def _export_lines(self) -> Generator[bytes, None, None]:
        principal = current_principal()
        with self._slots.hold(principal.id):
            yield from self._export.pages(principal)


def _delete(session: Session, user: User) -> DeletedAccount:
    try:
        return deletion.delete(session, user.id, current_actor(), password_hash=user.password_hash)
    except UserNotFoundError:  # its password was changed meanwhile, or another request has deleted it
        raise InvalidCredentialsError from None


def _authorize() -> None:
    if request.endpoint in _READ_ENDPOINTS:
        require_prompts()
    else:
        require_login()
