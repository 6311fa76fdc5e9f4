"""Embedding texts of which an embedder may refuse some."""

from collections.abc import Callable, Sequence

from celery.exceptions import SoftTimeLimitExceeded

from shared.errors import ProviderError
from shared.providers import Embedder, Vectors, embed, interruption

#: A text that every embedder takes: it shows whether a failure was a text's fault or the embedder's.
_PROBE = ["hello"]


def embed_each(
    embedder: Embedder, texts: Sequence[str], *, is_outage: Callable[[Exception], bool]
) -> list[Vectors | Exception]:
    """Embed texts together; where the embedder fails, in halves, down to single ones.

    Returns for each text its vector, shape (dimension,), or the error that the embedder raised for this text alone.

    Raises:
        Exception: one for which `is_outage` is true. The rest of the texts was not tried.
        SoftTimeLimitExceeded: the task was interrupted; so may any reason of an `Interruption`.
    """
    try:
        return list(embed(embedder, texts))
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:  # custom embedders may raise anything
        interruption.current().check()
        if is_outage(error):
            raise
        if len(texts) == 1:
            return [error]
    middle = len(texts) // 2
    halves = (texts[:middle], texts[middle:])
    return [each for half in halves for each in embed_each(embedder, half, is_outage=is_outage)]


def concerns_all_texts(error: Exception) -> bool:
    """Whether the embedder says that another attempt could succeed: so no text is the cause."""
    return isinstance(error, ProviderError) and error.retryable


def works(embedder: Embedder) -> bool:
    """Whether the embedder embeds a word. Raises as `embed_each` does if the task is interrupted."""
    (result,) = embed_each(embedder, _PROBE, is_outage=lambda _: False)
    return not isinstance(result, Exception)
