"""Validating the input file of a batch, and reading it again when its lines are stored."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from sqlalchemy import Engine, select

from shared.accounts.budgets import Estimator
from shared.batches import files, lines
from shared.batches.leases import BatchLease
from shared.batches.lines import MAX_ERRORS, BatchLine, Line, LineError
from shared.db.models import ApiKey
from shared.errors import InvalidFieldsError
from shared.prompts.model_choice import ModelChoice
from shared.settings import Settings


class ReadyLine(NamedTuple):
    """A valid line, the model route that answers it, and the tokens that it reserves."""

    line: BatchLine
    route: str
    reserved: int


class Validated(NamedTuple):
    """What a file has: its lines and what they reserve, or the first MAX_ERRORS errors."""

    lines: int
    reserved: int
    errors: list[dict[str, str | int | None]]


class _Key(NamedTuple):
    """What the API key of a batch may do."""

    models: frozenset[str] | None = None
    monthly_tokens: int | None = None


class InputFiles:
    """Reads the input files of batches."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._choice = ModelChoice(settings.models)
        self._estimators = {route: Estimator(model) for route, model in settings.models.items()}

    def lines(self, batch: BatchLease, *, number: int = 0, position: int = 0) -> Iterator[Line]:
        """The lines of the file, after one that ends at this position."""
        read_chunk = partial(self._read_chunk, batch.input_file_id)
        return lines.read(read_chunk, max_bytes=self._settings.max_body_bytes, position=position, number=number)

    def next_lines(self, batch: BatchLease) -> Iterator[ReadyLine]:
        """The lines that are not stored yet. The whole file was valid."""
        key = self._key(batch)
        for line in self.lines(batch, number=batch.stored_lines, position=batch.stored_bytes):
            yield self._ready(lines.parse(line, batch.endpoint, self._settings.max_body_bytes), key)

    def validate(self, batch: BatchLease) -> Iterator[Validated]:
        """Read the whole file. Yields what was found so far after each line, so that the caller can renew its lease."""
        key, reserved = self._key(batch), 0
        errors: list[dict[str, str | int | None]] = []
        for count, parsed in enumerate(lines.parse_all(self.lines(batch), batch.endpoint, self._settings), 1):
            if isinstance(parsed, LineError):
                errors.append(parsed.error)
            else:
                try:
                    reserved += self._ready(parsed, key).reserved
                except LineError as error:
                    errors.append(error.error)
            yield Validated(count, reserved, errors)
            if len(errors) == MAX_ERRORS:
                return

    def _ready(self, line: BatchLine, key: _Key) -> ReadyLine:
        """The line with its route. Raises LineError if its model cannot do what it asks for, or its key may not."""
        parsed = line.parsed
        try:
            route = self._choice.check(parsed.model, parsed.asked, parsed.prompt_text)
        except InvalidFieldsError as error:
            param = error.fields[0] if error.fields else None
            raise LineError("invalid_request", str(error), line=line.number, param=param) from None
        if key.models is not None and route not in key.models:
            message = f"The API key of the batch may not use the model {route}."
            raise LineError("invalid_request", message, line=line.number, param="model")
        estimate = self._estimators[route].tokens
        return ReadyLine(line, route, estimate(parsed.prompt_text, 0, key.monthly_tokens, parsed.asked.stored))

    def _key(self, batch: BatchLease) -> _Key:
        if batch.key_id is None:
            return _Key()
        with self._engine.connect() as connection:
            wanted = select(ApiKey.models, ApiKey.monthly_tokens).where(ApiKey.id == batch.key_id)
            row = connection.execute(wanted).first()
        if row is None:
            return _Key()
        return _Key(None if row.models is None else frozenset(row.models), row.monthly_tokens)

    def _read_chunk(self, file_id: int, number: int) -> bytes | None:
        with self._engine.connect() as connection:
            return files.read_chunk(connection, file_id, number)
