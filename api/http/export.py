"""Exports: all prompts of a user as JSON Lines, a page at a time, so that any number of them takes constant memory."""

import errno
from collections.abc import Iterable, Iterator
from dataclasses import replace

import structlog
from pydantic_core import to_json
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.auth.principal import Principal
from api.auth.token_cache import is_alive
from api.http.prompt_schemas import exported_prompt
from api.realtime.fair_semaphore import FairSemaphore
from shared.accounts import export
from shared.accounts.export import ExportedPrompt
from shared.db.engine import cause

log = structlog.get_logger(__name__)

MIMETYPE = "application/x-ndjson"
#: How many exports of a process read from the database at the same time.
MAX_CONCURRENT_READS = 2


class PromptExport:
    """Reads and renders exports."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reads = FairSemaphore(MAX_CONCURRENT_READS)

    def pages(self, principal: Principal) -> Iterator[bytes]:
        """Yield the lines of all prompts that the user has now, oldest first, a page at a time.

        Raises:
            ConnectionResetError: the login has ended or the database is unavailable after the first page. The client
                sees that the response is not complete, because the connection closes without its end.
        """
        with self._reads, self._engine.connect() as connection:
            last = export.newest_id(connection, principal.id)
            page = export.page(connection, principal.id, after=0, last=last)
        while page:
            yield json_lines(page, principal.username)
            page = self._next_page(principal, page[-1].prompt.id, last)

    def _next_page(self, principal: Principal, after: int, last: int) -> list[ExportedPrompt]:
        try:
            with self._reads:
                # The token may expire: a long export takes longer than it is valid.
                if not is_alive(self._engine, replace(principal, expires_at=float("inf"))):
                    raise _Interrupted("the login has ended")
                with self._engine.connect() as connection:
                    return export.page(connection, principal.id, after=after, last=last)
        except SQLAlchemyError as error:
            raise _Interrupted(cause(error)) from None


class _Interrupted(ConnectionResetError):
    """The export ends early. gunicorn closes the connection, and logs no traceback for an error with this number."""

    def __init__(self, reason: str) -> None:
        log.warning("export interrupted", reason=reason)
        super().__init__(errno.ECONNRESET, reason)


def json_lines(prompts: Iterable[ExportedPrompt], username: str) -> bytes:
    """Render prompts as JSON Lines."""
    return b"".join(to_json(exported_prompt(each, username)) + b"\n" for each in prompts)
