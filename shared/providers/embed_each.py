"""Embedding texts of which an embedder may refuse some, so that no text costs another one its vector."""

from collections.abc import Callable, Sequence

from celery.exceptions import SoftTimeLimitExceeded

from shared.errors import ProviderError
from shared.providers import Embedder, Vectors, embed, interruption

#: A text that every embedder takes: it shows whether a failure was a text's fault or the embedder's.
_WORD = ["hello"]

#: Whether an error means that the embedder does not work, so that no text is the cause.
IsOutage = Callable[[Exception], bool]


class EmbedderOutageError(Exception):
    """The embedder does not work. `cause` is its error."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


def embed_each(
    embedder: Embedder, texts: Sequence[str], is_outage: IsOutage | None = None
) -> list[Vectors | Exception]:
    """Embed texts together; where the embedder fails, in halves, down to single ones.

    Returns for each text its vector, shape (dimension,), or the error that the embedder raised for this text alone.

    Args:
        is_outage: By default, the embedder is asked for a word after a failure, to find out whether it works.

    Raises:
        EmbedderOutageError: the embedder does not work. The rest of the texts was not tried.
        SoftTimeLimitExceeded: the task was interrupted; so may any reason of an `Interruption`.
    """
    return _embed_halves(embedder, texts, is_outage or _asking_for_a_word(embedder))


def concerns_all_texts(error: Exception) -> bool:
    """Whether the embedder says that another attempt could succeed: so no text is the cause."""
    return isinstance(error, ProviderError) and error.retryable


def _embed_halves(embedder: Embedder, texts: Sequence[str], is_outage: IsOutage) -> list[Vectors | Exception]:
    try:
        return list(embed(embedder, texts))
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:  # custom embedders may raise anything
        interruption.current().check()
        if is_outage(error):
            raise EmbedderOutageError(error) from error
        if len(texts) == 1:
            return [error]
    middle = len(texts) // 2
    halves = (texts[:middle], texts[middle:])
    return [each for half in halves for each in _embed_halves(embedder, half, is_outage)]


def _asking_for_a_word(embedder: Embedder) -> IsOutage:
    """Judge errors by whether the embedder embeds a word.

    Once it has, it is asked again only after an error that concerns all texts.
    """
    has_worked = False

    def is_outage(error: Exception) -> bool:
        nonlocal has_worked
        if not has_worked or concerns_all_texts(error):
            (result,) = _embed_halves(embedder, _WORD, lambda _: False)
            has_worked = not isinstance(result, Exception)
            return not has_worked
        return False

    return is_outage
