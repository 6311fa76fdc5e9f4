"""WebSocket frames: their sizes, and the encoding of text messages."""

from functools import lru_cache

from wsproto.events import Event, Message


def message_size(event: Event) -> int:
    """The number of bytes in a message, or in a fragment of one; 0 for a control frame."""
    if not isinstance(event, Message):
        return 0
    return len(event.data.encode() if isinstance(event.data, str) else event.data)


@lru_cache(maxsize=1)
def text_frame(text: str) -> bytes:
    """Encode a text message (RFC 6455, section 5.2). The result is cached: the sockets of a room get the same."""
    payload = text.encode()
    length = len(payload)
    if length < 126:
        head = bytes((0x81, length))
    elif length < 1 << 16:
        head = b"\x81\x7e" + length.to_bytes(2)
    else:
        head = b"\x81\x7f" + length.to_bytes(8)
    return head + payload
