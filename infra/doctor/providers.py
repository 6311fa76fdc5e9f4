"""Checks of the generator and the embedder."""

from collections.abc import Iterator

from infra.doctor import Finding, Severity
from shared.errors import ProviderError
from shared.providers import embed
from shared.providers.factory import make_embedder, make_generator
from shared.settings import Settings


def generator(settings: Settings) -> Iterator[Finding]:
    """GENERATOR names an existing generator with the settings it needs. No text is generated: that may cost money."""
    generator = make_generator(settings)
    if settings.app_env == "prod" and generator.name.startswith("simulated"):
        yield Finding(
            "GENERATOR=simulated does not generate real answers.",
            "Set GENERATOR to a model (docs/models.md).",
            Severity.BEWARE,
        )


def embedder(settings: Settings) -> Iterator[Finding]:
    """The embedder embeds a word."""
    embedder = make_embedder(settings)
    try:
        embed(embedder, ["hello"])
    except ProviderError as error:
        yield Finding(f"The embedder {embedder.name} fails: {error}", "Check its settings, and that it runs.")
