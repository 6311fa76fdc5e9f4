"""Recording in the audit trail what admins look at."""

import time

from flask import request

from api.auth.principal import current_actor, current_principal
from api.http.fields import MAX_ID
from shared.accounts import audit
from shared.db.engine import Sessions

#: A view is recorded once in this time, so that a page that an admin keeps open does not fill the audit trail.
RECORD_SECONDS = 3_600
_MAX_REMEMBERED = 10_000


class AdminViews:
    """Records each view of an admin, and of each user, once in RECORD_SECONDS in this process."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._recorded: dict[tuple[int, str, int | None], float] = {}

    def record(self) -> None:
        """Record the view before it is shown. Use it as a blueprint's `before_request`, after `require_admin`."""
        name = (request.endpoint or "").rpartition(".")[2]
        if request.method != "GET" or name == "audit":
            return
        user_id = (request.view_args or {}).get("user_id") or request.args.get("user", type=int)
        if user_id is not None and user_id > MAX_ID:
            return  # there is no such user
        view = (current_principal().id, name, user_id)
        if time.monotonic() < self._recorded.get(view, -RECORD_SECONDS) + RECORD_SECONDS:
            return
        with self._sessions.begin() as session:
            audit.record(session, current_actor(), f"{name}.viewed", user_id)
        if len(self._recorded) >= _MAX_REMEMBERED:
            self._recorded.clear()
        self._recorded[view] = time.monotonic()
