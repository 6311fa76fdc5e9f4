"""Joins characters that a server has cut in two: half in the end of one piece of text, half in the next.

Servers that stream tokens cut a character's UTF-16 (`"\\ud83d"`, then `"\\ude00"`) or its UTF-8. In Python both are
lone surrogates: the halves of a pair, or bytes escaped as PEP 383 says.
"""

import re

_SURROGATES = re.compile("[\ud800-\udfff]+")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_BYTES = re.compile("[\udc80-\udcff]+")
_LONE = re.compile("[\ud800-\udfff]")
#: What may continue in the next piece: the first half of a pair, or the first bytes of a character.
_UNFINISHED = re.compile("(?:[\ud800-\udbff]|[\udcc2-\udcf4][\udc80-\udcbf]{0,2})$")
_REPLACEMENT = "\ufffd"


class Joiner:
    """Returns pieces of text without lone surrogates. What stays alone becomes U+FFFD."""

    def __init__(self) -> None:
        self._held = ""

    def join(self, text: str) -> str:
        """Return this piece with what the last ones left, but without the beginning of a cut character at its end."""
        if not self._held and _SURROGATES.search(text) is None:
            return text
        text, self._held = self._held + text, ""
        text = _PAIR.sub(_join_pair, text)
        if (unfinished := _UNFINISHED.search(text)) and _is_beginning(unfinished[0]):
            text, self._held = text[: unfinished.start()], unfinished[0]
        return _complete(text)

    def flush(self) -> str:
        """Return what is left at the end of the text."""
        rest, self._held = _complete(self._held), ""
        return rest


def _is_beginning(escaped: str) -> bool:
    """Whether more bytes are needed, of those that are escaped here."""
    first = ord(escaped[0])
    if first < 0xDC80:
        return True
    length = 2 if first < 0xDCE0 else 3 if first < 0xDCF0 else 4
    return len(escaped) < length


def _complete(text: str) -> str:
    text = _BYTES.sub(lambda found: found[0].encode(errors="surrogateescape").decode(errors="replace"), text)
    return _LONE.sub(_REPLACEMENT, text)


def _join_pair(found: re.Match[str]) -> str:
    return found[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")
