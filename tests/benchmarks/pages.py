"""Figures in the pages of the documentation: each text that has some is a function of the results.

`publish` replaces the texts of the former results, and tests compare pages and results (`missing`).
"""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.reporting import merge, read
from tests.support.servers import ROOT

Results = dict[str, Any]
#: The texts of each page.
Pages = Mapping[Path, tuple[Callable[[Results], str], ...]]

README = ROOT / "README.md"
DOCS = ROOT / "docs"
ARCHITECTURE = ROOT / "infra" / "architecture.md"
WIDTH = 140
#: How lines begin that are no part of a paragraph.
_NO_PARAGRAPH = ("|", "- ", "#", ">", "```", "  ")


def missing(pages: Pages, results: Results) -> list[str]:
    """The texts that are not in their pages as the results have them."""
    return [
        f"{page.name}: {text}"
        for page, renderers in pages.items()
        for text in (_text(render, results) for render in renderers)
        if not re.search(_pattern(text), page.read_text())
    ]


def publish(pages: Pages, before: Results, after: Results) -> None:
    """Replace the texts of the results `before` by those of `after`."""
    for page, renderers in pages.items():
        content = page.read_text()
        for render in renderers:
            if found := re.search(_pattern(_text(render, before)), content):
                content = _replaced(content, found, _text(render, after))
        page.write_text(content)


def store(path: Path, pages: Pages, results: Results) -> Results:
    """Replace the measured sections in a file of results, and in its pages. Returns the merged results."""
    before, merged = read(path), merge(path, results)
    publish(pages, before, merged)
    return merged


def markdown_table(heads: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A table whose rows have names."""
    lines = [heads, ["---"] * len(heads), *([name, *cells] for name, cells in rows.items())]
    return "\n".join("".join(f"| {cell} " if cell else "| " for cell in cells) + "|" for cells in lines)


def _text(render: Callable[[Results], str], results: Results) -> str:
    try:
        return render(results)
    except KeyError:  # not measured yet
        return ""


def _pattern(text: str) -> str:
    """A regular expression for the text, wherever its lines are broken. It finds nothing if the text is empty."""
    return r"\s+".join(map(re.escape, text.split())) or "$^"


def _replaced(content: str, found: re.Match[str], text: str) -> str:
    """Replace what was found, and break the lines of its paragraph again. Those of tables stay, indented as before."""
    text = text.replace("\n", "\n" + content[content.rfind("\n", 0, found.start()) + 1 : found.start()])
    start = content.rfind("\n\n", 0, found.start()) + 2
    end = content.find("\n\n", found.end())
    end = len(content) if end < 0 else end
    block = content[start : found.start()] + text + content[found.end() : end]
    if not any(line.startswith(_NO_PARAGRAPH) for line in block.splitlines()):
        block = _filled(block)
    return content[:start] + block + content[end:]


def _filled(paragraph: str) -> str:
    """The paragraph in lines of the usual width. Code stays in one line."""
    words = re.sub("`[^`]*`", lambda code: code[0].replace(" ", "\0"), " ".join(paragraph.split()))
    return textwrap.fill(words, WIDTH, break_long_words=False, break_on_hyphens=False).replace("\0", " ")
