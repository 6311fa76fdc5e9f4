"""Files, as OpenAI's API has them: what batches read and write."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from flask import Response, request
from flask_openapi3 import Tag
from sqlalchemy import Engine

from api.auth.principal import current_principal
from api.auth.tokens import Authenticator
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import Responses, empty_response, json_response
from api.intake.user_slots import UserSlots
from api.openai.blueprint import openai_blueprint, openai_error_responses
from api.openai.file_schemas import FileDeleted, FileList, FileObject, FilePath, FilesQuery, file_object
from api.openai.pages import listed
from api.openai.upload import Upload, UploadLimits
from shared.batches import files
from shared.db.engine import Sessions
from shared.db.models import Scope
from shared.errors import FileInUseError, FileNotStoredError, InsufficientScopeError, UserLimitError
from shared.openai import ids
from shared.openai.ids import IdPrefix
from shared.settings import Settings

#: How many uploads and downloads a user may have at a time in each API process: each holds some chunks in memory.
MAX_TRANSFERS = 4
MIMETYPE = "application/octet-stream"
_TRANSFERS = "A user may send or read {limit} files at a time: repeat this when another has ended."
_FULL = UserLimitError("Your files may have 2147483648 bytes together. Delete some. (USER_FILE_BYTES)")

_file = partial(json_response, FileObject)
_NOT_FOUND = openai_error_responses(FileNotStoredError())
_WRITE = openai_error_responses(InsufficientScopeError(Scope.PROMPTS_WRITE))
CREATE: Responses = {200: _file("It is stored.", "file"), **openai_error_responses(413, 415, _FULL), **_WRITE}
INDEX: Responses = {200: json_response(FileList, "A page.", "files"), **_NOT_FOUND}
SHOW: Responses = {200: _file("The file.", "file", "output file"), **_NOT_FOUND}
CONTENT: Responses = {
    200: empty_response("The content.")
    | {"content": {MIMETYPE: {"schema": {"type": "string", "format": "binary"}, "example": "{}"}}},
    **_NOT_FOUND,
    **openai_error_responses(UserLimitError(_TRANSFERS.format(limit=MAX_TRANSFERS))),
}
DELETE: Responses = {
    200: json_response(FileDeleted, "It is deleted.", "deleted file"),
    **_NOT_FOUND,
    **openai_error_responses(FileInUseError()),
    **_WRITE,
}
#: flask-openapi3 would read the body itself, and all of it into memory.
UPLOAD_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "purpose": {"type": "string", "enum": ["batch"]},
                    "file": {"type": "string", "format": "binary", "description": "JSON Lines."},
                },
                "required": ["purpose", "file"],
                "additionalProperties": False,
            },
            "example": {"purpose": "batch", "file": "questions.jsonl"},
        }
    },
}


class FileRoutes:
    """Views of files."""

    def __init__(self, settings: Settings, sessions: Sessions, engine: Engine, authenticator: Authenticator) -> None:
        self._limits = UploadLimits(settings.max_file_bytes, settings.user_file_bytes)
        self._sessions = sessions
        self._engine = engine
        self._authenticator = authenticator
        self._transfers = UserSlots(MAX_TRANSFERS, "MAX_TRANSFERS", _TRANSFERS)

    def blueprint(self) -> Blueprint:
        tag = Tag(name="Files", description="OpenAI's API: the files of batches.")
        bp = openai_blueprint("openai_files", __name__, self._authenticator, tag)
        one = "/files/<string:file_id>"
        body = {"requestBody": UPLOAD_BODY}
        bp.post("/files", operation_id="createFile", responses=CREATE, openapi_extensions=body)(self.create)
        bp.get("/files", operation_id="listFiles", responses=INDEX)(self.index)
        bp.get(one, operation_id="getFile", responses=SHOW)(self.show)
        bp.get(f"{one}/content", operation_id="getFileContent", responses=CONTENT)(self.content)
        bp.delete(one, operation_id="deleteFile", responses=DELETE)(self.delete)
        return bp

    def create(self) -> dict[str, Any]:
        """Upload a file: a multipart form with `purpose` (`batch`) and `file`.

        It is stored as it arrives, in constant memory. The upload may take longer than other requests as long as
        64 KiB a second arrive.
        """
        user_id = current_principal().id
        with self._transfers.hold(user_id):
            return file_object(Upload(self._engine, user_id, self._limits).receive(request))

    def index(self, query: FilesQuery) -> dict[str, Any]:
        """List files, newest first. The next page begins `after` the last file of this one."""
        after = None if query.after is None else self._number(query.after)
        with self._engine.connect() as connection:
            found = files.page(
                connection,
                current_principal().id,
                limit=query.limit + 1,  # one more shows whether there is a next page
                after=after,
                purpose=query.purpose,
                oldest_first=query.order == "asc",
            )
        return listed([file_object(each) for each in found[: query.limit]], has_more=len(found) > query.limit)

    def show(self, path: FilePath) -> dict[str, Any]:
        """Get a file without its content."""
        return file_object(self._find(path))

    def content(self, path: FilePath) -> Response:
        """Get the content of a file."""
        file, user_id = self._find(path), current_principal().id
        self._transfers.acquire(user_id)
        response = Response(self._chunks(file.id), mimetype=MIMETYPE)
        response.call_on_close(partial(self._transfers.release, user_id))
        response.content_length = file.bytes
        return response

    def delete(self, path: FilePath) -> dict[str, Any]:
        """Delete a file. The input of a batch that has not ended is refused (409)."""
        user_id, file = current_principal().id, self._find(path)
        with self._sessions.begin() as session:
            files.delete_unused(session, user_id, file.id)
        return {"id": path.file_id, "object": "file", "deleted": True}

    def _find(self, path: FilePath) -> files.StoredFile:
        number = self._number(path.file_id)
        with self._engine.connect() as connection:
            return files.get(connection, current_principal().id, number)

    @staticmethod
    def _number(file_id: str) -> int:
        number = ids.parse(IdPrefix.FILE, file_id)
        if number is None:
            raise FileNotStoredError
        return number

    def _chunks(self, file_id: int) -> Iterator[bytes]:
        return files.chunks(partial(self._read_chunk, file_id))

    def _read_chunk(self, file_id: int, number: int) -> bytes | None:
        with self._engine.connect() as connection:
            return files.read_chunk(connection, file_id, number)
