"""Words as PostgreSQL stores and looks them up: each begins with the id of the user whose prompt has it."""

from itertools import accumulate, takewhile

from shared.search.words.tokens import words_of

#: The words of a prompt beyond these bytes are left out. PostgreSQL's limit for a tsvector is 1 MiB.
MAX_WORDS_BYTES = 900_000
#: The words of a query beyond these are left out. The longest ones stay: long words are rare ones.
MAX_QUERY_WORDS = 32


def lexemes(user_id: int, text: str) -> str:
    """Return the lexemes of a text with spaces between them; no lexeme has one."""
    words = [f"{user_id}:{word}" for word in words_of(text)]
    sizes = accumulate(len(word.encode()) for word in words)
    count = sum(1 for _ in takewhile(lambda size: size <= MAX_WORDS_BYTES, sizes))
    return " ".join(words[:count])


def queries(user_id: int, text: str) -> list[str]:
    """Return a tsquery for each word of a text that is worth looking up."""
    words = list(words_of(text))
    if len(words) > MAX_QUERY_WORDS:
        words = sorted(words, key=len, reverse=True)[:MAX_QUERY_WORDS]
    return [_quoted(f"{user_id}:{word}") for word in words]


def _quoted(lexeme: str) -> str:
    return "'" + lexeme.replace("\\", "\\\\").replace("'", "''") + "'"
