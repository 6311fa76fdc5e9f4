"""A small form of `make benchmark NAME=search_quality`, with the default embedder."""

import pytest

from shared.providers.hashing import HashingEmbedder
from shared.search.prompt_search import Mode
from shared.settings import Settings
from tests.benchmarks.identifiers import Identified
from tests.benchmarks.search_quality import IDENTIFIERS, PARAPHRASES, corpus, held_out_corpus, measured


@pytest.mark.parametrize("prompts", [corpus()[::4], held_out_corpus()[::3]], ids=["chosen with", "held out"])
def test_hybrid_finds_identifiers_where_vectors_fail_and_is_no_worse_on_paraphrases(
    settings: Settings, prompts: list[Identified]
) -> None:
    with measured(settings, HashingEmbedder(), prompts) as measure:
        vector, hybrid = measure(Mode.VECTOR), measure(Mode.HYBRID)
    assert vector[IDENTIFIERS] < 0.5
    assert hybrid[IDENTIFIERS] >= 0.95
    assert hybrid[PARAPHRASES] >= vector[PARAPHRASES]
