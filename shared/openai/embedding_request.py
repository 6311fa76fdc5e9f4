"""The body of `POST /v1/embeddings`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Tag

from shared.openai.fields import Count, PlainText, Text, text_or
from shared.request_body import Body

MAX_INPUTS = 2_048


def _no_tokens(value: object) -> object:
    items = value if isinstance(value, list) else ()
    if any(isinstance(each, int | list) for each in items):
        raise ValueError("must be texts: tokens are not served here, because they belong to one model")
    return value


def _no_blank(value: str | list[str]) -> str | list[str]:
    if any(not text.strip() for text in ([value] if isinstance(value, str) else value)):
        raise ValueError("must not be blank")
    return value


_Input = Annotated[
    PlainText | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS), Tag("~list")],
    text_or("~list"),
    BeforeValidator(_no_tokens),
    AfterValidator(_no_blank),
]


class EmbeddingRequest(Body):
    """Texts to turn into vectors."""

    model: Text = Field(description="The embedder: the last of `GET /v1/models`.")
    input: _Input
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = Field(None, description="The length of the vectors; only the embedder's own.")
    user: Text | None = None

    @property
    def texts(self) -> list[str]:
        """The inputs."""
        return [self.input] if isinstance(self.input, str) else self.input
