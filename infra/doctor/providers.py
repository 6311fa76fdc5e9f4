"""Whether what answers and what embeds can be had."""

from collections.abc import Iterator

from infra.doctor import Finding, Severity
from shared.errors import ProviderError
from shared.providers import embed
from shared.providers.factory import make_embedder, make_generator
from shared.settings import Settings


def generator(settings: Settings) -> Iterator[Finding]:
    """That there is one of that name, with the settings it needs. It is not asked: that may cost money."""
    made = make_generator(settings)
    if settings.app_env == "prod" and made.name.startswith("simulated"):
        yield Finding(
            "GENERATOR=simulated answers nothing really.",
            "Set GENERATOR to a real one (docs/models.md).",
            Severity.BEWARE,
        )


def embedder(settings: Settings) -> Iterator[Finding]:
    """That it embeds a word."""
    made = make_embedder(settings)
    try:
        embed(made, ["hello"])
    except ProviderError as error:
        yield Finding(f"The embedder {made.name} does not embed: {error}", "See its settings, and whether it runs.")
