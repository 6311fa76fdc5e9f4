"""The hashing embedder: deterministic vectors of unit length, near for texts that share words."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from shared.providers.hashing import HashingEmbedder
from tests.support.servers import MAX_WAIT_SECONDS, ROOT

# Paraphrases that share words, as when people repeat themselves.
PARAPHRASES = [
    ("What causes ocean tides?", "Explain what causes the tides of the ocean"),
    ("How do I reverse a list in Python?", "python reverse list"),
    ("Summarise this contract for a tenant", "Give me a summary of the tenant's contract"),
    ("Best way to learn Spanish quickly", "How can I learn Spanish faster?"),
    ("Write a haiku about autumn leaves", "An autumn haiku on falling leaves, please"),
    ("Convert 5 miles to kilometres", "How many kilometres are 5 miles?"),
    ("Why is my Docker container restarting?", "docker container keeps restarting, why"),
    ("Recipe for vegan chocolate cake", "I want to bake a vegan cake with chocolate"),
    ("Explain quantum entanglement simply", "Simple explanation of quantum entanglement"),
    ("Draft an email declining a meeting", "Write a polite email to decline the meeting"),
    ("What is the capital of Australia?", "capital city of australia"),
    ("Fix this SQL query that joins orders and customers", "My SQL join of customers and orders is wrong"),
]
UNRELATED = [
    ("What causes ocean tides?", "Write a haiku about autumn leaves"),
    ("How do I reverse a list in Python?", "What is the capital of Australia?"),
    ("Summarise this contract for a tenant", "Why is my Docker container restarting?"),
    ("Best way to learn Spanish quickly", "Fix this SQL query that joins orders and customers"),
    ("Convert 5 miles to kilometres", "Draft an email declining a meeting"),
    ("Recipe for vegan chocolate cake", "Explain quantum entanglement simply"),
    ("How do I learn the piano?", "What is the price of gold?"),
    ("Tell me about the Roman empire", "Tell me about photosynthesis"),
    ("Can you help me with my taxes?", "Can you help me with my garden?"),
    ("What is the best phone of this year?", "What is the deepest lake of the world?"),
]


def distances(pairs: list[tuple[str, str]]) -> np.ndarray:
    embedder = HashingEmbedder()
    left, right = (embedder.embed([pair[side] for pair in pairs]) for side in (0, 1))
    return ((left - right) ** 2).sum(axis=1)


def test_paraphrases_are_nearer_than_unrelated_texts() -> None:
    """Measured: squared distances 0.03-1.01 (mean 0.61) and 1.76-2.14 (mean 1.97): one threshold separates them."""
    near, far = distances(PARAPHRASES), distances(UNRELATED)
    assert near.max() < far.min()
    assert near.mean() < 0.7
    assert far.mean() > 1.9


def test_each_paraphrases_nearest_text_is_its_partner() -> None:
    embedder = HashingEmbedder()
    stored = embedder.embed([right for _, right in PARAPHRASES])
    queries = embedder.embed([left for left, _ in PARAPHRASES])
    nearest = ((queries[:, None] - stored[None]) ** 2).sum(axis=2).argmin(axis=1)
    assert nearest.tolist() == list(range(len(PARAPHRASES)))


def test_hashing_the_whole_text_does_not_recognise_paraphrases() -> None:
    """A comparison with the original service: with one hash of a whole text, a paraphrase is as far as any text."""

    def embed(text: str) -> np.ndarray:
        digests = b"".join(hashlib.sha256(f"{text}{i}".encode()).digest() for i in range(12))
        vector = np.frombuffer(digests, dtype=np.uint8).astype(np.float64) - 127.5
        return vector / np.linalg.norm(vector)

    paraphrases = [((embed(left) - embed(right)) ** 2).sum() for left, right in PARAPHRASES]
    assert min(paraphrases) > 1.5


@pytest.mark.parametrize(
    "text", ["a", "Hello, world!", "!!!", "  x  ", "世界 👋🏽", "ß" * 100_000, "the of and", "\u0301"]
)
def test_vectors_have_unit_length_and_384_finite_dimensions(text: str) -> None:
    vectors = HashingEmbedder().embed([text])
    assert (vectors.shape, vectors.dtype) == ((1, 384), np.float32)
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-6)


def test_an_empty_list_of_texts_gives_no_vectors() -> None:
    assert HashingEmbedder().embed([]).shape == (0, 384)


def test_case_and_unicode_form_do_not_matter() -> None:
    a, b = HashingEmbedder().embed(["Café TIDE\u2460", "cafe\u0301 tide1"])
    assert np.array_equal(a, b)


def test_vectors_are_the_same_in_every_process_and_on_every_machine() -> None:
    """Stored vectors outlive the process: a change of the embedder requires another name."""
    program = (
        "import hashlib, sys; from shared.providers.hashing import HashingEmbedder as E;"
        "print(hashlib.sha256(E().embed(['What causes ocean tides?']).tobytes()).hexdigest())"
    )
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=MAX_WAIT_SECONDS,
    )
    assert run.stdout.strip() == "76a8feb181ef6ad9b5aa9030cdeb0f40193dc49f1adb62f788207d7236532b42"
    assert HashingEmbedder.name == "hashing-1"
