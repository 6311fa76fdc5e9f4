"""Keeping what failed attempts have published, for the streams of `/v1/responses`."""

from dataclasses import dataclass

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.db.engine import cause
from shared.messaging.partial_text import PartialText
from shared.openai.stored_responses import keep_interrupted_text

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class InterruptedTexts:
    """Stores the texts of attempts that have ended without an answer, if their prompts are responses.

    Args:
        engine: In autocommit mode.
    """

    engine: Engine
    partial_text: PartialText

    def keep(self, prompt_id: int, attempt: int) -> None:
        """Store what this attempt has published, before Redis forgets it. The prompt goes on without it if need be."""
        try:
            with self.engine.connect() as connection:
                keep_interrupted_text(connection, self.partial_text, prompt_id, attempt)
        except SQLAlchemyError as error:
            log.warning("text of an interrupted attempt not stored", prompt_id=prompt_id, error=cause(error))
