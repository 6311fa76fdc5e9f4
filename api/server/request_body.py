"""The body of a request: HTTP exceptions for malformed bodies, and a limit on what is read only to be discarded."""

from gunicorn.http import errors
from gunicorn.http.body import Body, LengthReader
from werkzeug.exceptions import BadRequest, ClientDisconnected, RequestTimeout

from api.server.client_socket import RequestTimeoutError

#: An unread body of up to this many bytes is discarded after the response, so that the connection can be kept.
MAX_DISCARDED_BYTES = 64 * 1024


class RequestBody(Body):  # type: ignore[misc]
    """gunicorn's body, which raises HTTP exceptions for a body that is malformed, cut off or late.

    gunicorn's own exceptions would become responses with status 500.
    """

    @property
    def is_complete(self) -> bool:
        """Whether all of it was read from the connection."""
        return not self.failed and self._unread == 0

    @property
    def may_be_discarded(self) -> bool:
        """Whether the rest is known to be small."""
        unread = self._unread
        return not self.failed and unread is not None and unread <= MAX_DISCARDED_BYTES

    def discard(self) -> bool:
        """Read the rest if it is small. Returns whether the next request follows on the connection."""
        try:
            while self.may_be_discarded and not self.is_complete:
                self.read(MAX_DISCARDED_BYTES)
        except (BadRequest, RequestTimeout):
            return False
        return self.is_complete

    @property
    def _unread(self) -> int | None:
        """How many bytes are still to be read; None if that is not known."""
        if isinstance(self.reader, LengthReader):
            length: int = self.reader.length
            return length
        return 0 if self.reader.parser is None else None

    def _read_reader(self, size: int) -> bytes:
        expected = min(size, self._unread or 0)
        try:
            data: bytes = super()._read_reader(size)
        except RequestTimeoutError as error:
            raise RequestTimeout("The body did not arrive in time.") from error
        except errors.NoMoreData as error:
            raise ClientDisconnected from error
        except errors.ParseException as error:
            raise BadRequest("The body is not valid: its chunked transfer coding is malformed.") from error
        if len(data) < expected:
            self.failed = True
            raise ClientDisconnected
        return data
