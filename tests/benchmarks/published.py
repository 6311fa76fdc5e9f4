"""The benchmarks that are one module each: their results (`results.json`, by the module's name), and their figures as
the documentation has them.
"""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from tests.benchmarks.pages import ARCHITECTURE, DOCS, Pages, Results, markdown_table, store
from tests.benchmarks.reporting import machine

RESULTS = Path(__file__).with_name("results.json")
LIBRARIES = (
    "celery",
    "gunicorn",
    "httpx",
    "openai",
    "psycopg2-binary",
    "redis",
    "sqlalchemy",
    "faiss-cpu",
    "onnxruntime",
)

#: How many chunks an answer of `remote_model` has.
CHUNKS = 40


def parser(doc: str | None) -> ArgumentParser:
    """The options of a benchmark: one of them has its results published."""
    made = ArgumentParser(description=doc)
    made.add_argument("--write", action="store_true", help="replace the committed results and the figures in the docs")
    return made


def write(name: str, figures: dict[str, Any]) -> None:
    """Replace the results of a benchmark, in the file and in the documentation."""
    store(RESULTS, PAGES, {name: figures, "conditions": {name: machine(LIBRARIES)}})


def fair_queue(results: Results) -> str:
    """What it costs to submit and to claim, by how much is queued."""
    calls = ("submit 1", "submit 100", "claim 1", "claim 20", "claim 100")
    return markdown_table(
        ("queued by one user", *calls),
        {queued: [_ms(measured[call]["p50"]) for call in calls] for queued, measured in results["fair_queue"].items()},
    )


def positions(results: Results) -> str:
    """What the position of a prompt costs."""
    (*_, measured) = results["fair_queue"].values()
    first, last = (measured[f"position {rank:,}"]["p50"] for rank in (1, 9_000))
    return f"The position of a prompt takes {_ms(first)} ms for the first in line, and {_ms(last)} ms for the 9,000th."


def remote_model(results: Results) -> str:
    """How many prompts are answered at a time with a model that takes its time."""
    one, some, many = (results["remote_model"][count] for count in ("1", "200", "1000"))
    return (
        f"With a model that streams {CHUNKS} chunks in 4 s, `make up` answers 200 prompts of ten users in "
        f"{some['seconds']:.1f} s, {some['most']} at a time, with {some['memory_mb'] - one['memory_mb']} MB more of "
        f"memory than for one, and 1,000 in {many['seconds']:.0f} s (`make benchmark NAME=remote_model`). A chunk "
        f"costs the worker {many['cpu_us_per_chunk'] / 1000:.1f} ms of CPU, with everything that a prompt takes."
    )


def streaming(results: Results) -> str:
    """What it costs to stream a provider's answer."""
    ms = results["remote_model"]["1000"]["cpu_us_per_chunk"] * CHUNKS / 1_000
    return (
        f"an answer of {CHUNKS} pieces takes it {ms:.0f} ms of CPU (`make benchmark NAME=remote_model`), so a core "
        f"streams some {1_000 / ms:.0f} a second."
    )


def stream_reader(results: Results) -> str:
    """What it costs to read a chunk, also with the official client."""
    (one, many), (official_one, official_many) = (
        [results["stream_reader"][reader][str(streams)]["median"] for streams in (1, 200)]
        for reader in ("ours", "official client")
    )
    return (
        "`make benchmark NAME=stream_reader` measures the CPU time, with HTTP, that a worker needs to read a chunk of "
        f"a streamed answer: {one:.0f} µs with one stream, and {many:.0f} µs with 200 in one process, where threads "
        f"wait for each other. The official client needs {official_one:.0f} and {official_many:.0f} µs."
    )


def batches(results: Results) -> str:
    """How fast the lines of a batch are stored and answered, and what that means for others."""
    (count, few), (more, many) = results["batches"].items()
    return (
        f"{int(count):,} lines are stored at {few['stored_per_second']:,} a second and answered at "
        f"{few['answered_per_second']:,}, and {int(more):,} are stored at {many['stored_per_second']:,} "
        f"(`make benchmark NAME=batches`). While the {int(count):,} are in progress, a lone prompt, ten times a "
        f"second, takes {few['lone_ms_meanwhile']:.0f} ms instead of {few['lone_ms_before']:.0f} (median), and the "
        f"API's processes have {few['memory_mib']} MiB more."
    )


def search_modes(results: Results) -> str:
    """How long each mode of search takes."""
    measured = results["search_modes"]
    columns = [
        ("vector", "faiss"),
        ("text", "faiss"),
        ("hybrid", "faiss"),
        ("vector", "pgvector"),
        ("hybrid", "pgvector"),
    ]
    heads = [f"`{mode}`" if mode == "text" else f"`{mode}` {store}" for mode, store in columns]
    return markdown_table(
        ("", *heads),
        {label: [_ms(measured[store][label][mode]) for mode, store in columns] for label in measured["faiss"]},
    )


def search_quality(results: Results) -> str:
    """Recall of each mode of search, among the prompts that its thresholds were chosen with."""
    return _recall(results, "chosen with")


def held_out_quality(results: Results) -> str:
    """Recall of each mode of search, among others."""
    return _recall(results, "held out")


def _recall(results: Results, corpus: str) -> str:
    hashing, minilm = (results["search_quality"][corpus][embedder] for embedder in ("hashing", "minilm"))
    columns = {
        "`vector` hashing": hashing["vector"],
        "`vector` minilm": minilm["vector"],
        "`text`": hashing["text"],
        "`hybrid` hashing": hashing["hybrid"],
        "`hybrid` minilm": minilm["hybrid"],
    }
    rows = {
        "identifier in a short prompt": "short prompt",
        "identifier in a long prompt": "long prompt",
        "identifier in the answer only": "answer",
        "all identifiers": "all identifiers",
        "paraphrases": "paraphrases",
    }
    return markdown_table(
        ("", *columns), {title: [f"{each[kind]:.2f}" for each in columns.values()] for title, kind in rows.items()}
    )


def embedders(results: Results) -> str:
    """How well each embedder finds paraphrases, and what minilm costs."""
    measured, costs = results["embedders"]["recall at 1"], results["embedders"]["minilm"]
    return (
        f"{measured['minilm']:.0%} find their partner first among {results['embedders']['texts']} texts; with "
        f"`hashing` {measured['hashing']:.0%} do (`make benchmark NAME=embedders`). A short prompt costs "
        f"{costs['short_ms']:.0f} ms, a long one {costs['long_ms']:.0f} ms, a process {costs['memory_mb']:.0f} MB."
    )


PAGES: Pages = {
    ARCHITECTURE: (fair_queue, positions),
    DOCS / "aws.md": (streaming,),
    DOCS / "batches.md": (batches,),
    DOCS / "models.md": (embedders,),
    DOCS / "performance.md": (remote_model, stream_reader),
    DOCS / "search.md": (search_modes, search_quality, held_out_quality),
}


def _ms(value: float) -> str:
    decimals = 2 if value < 0.995 else 1 if value < 9.95 else 0
    return f"{value:.{decimals}f}"
