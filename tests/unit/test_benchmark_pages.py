"""Figures in pages: replaced wherever they stand, and missed where they differ."""

from pathlib import Path

from tests.benchmarks.pages import markdown_table, missing, publish


def rate(results: dict) -> str:
    return f"It answers {results['rate']} prompts a second on two cores, which also run the servers and the clients."


def table(results: dict) -> str:
    return markdown_table(("", "rate"), {"ours": [f"{results['rate']}"]})


BEFORE, AFTER = {"rate": 900}, {"rate": 1_000_000}


def published(path: Path, content: str) -> str:
    """The page after its figures were replaced."""
    path.write_text(content)
    pages = {path: (rate, table)}
    assert missing(pages, BEFORE) == []
    publish(pages, BEFORE, AFTER)
    assert missing(pages, AFTER) == []
    assert len(missing(pages, BEFORE)) == 2
    return path.read_text()


def test_lines_of_paragraphs_are_broken_again(tmp_path: Path) -> None:
    sentence = rate(BEFORE).replace("cores, which", "cores,\nwhich")
    page = published(tmp_path / "page.md", f"# Title\n\n{sentence} {'More. ' * 10}\n\n{table(BEFORE)}\n")
    assert page.startswith(f"# Title\n\n{rate(AFTER)} More.")
    assert max(map(len, page.splitlines())) <= 140
    assert page.endswith(f"\n\n{table(AFTER)}\n")


def test_lists_and_indentations_stay(tmp_path: Path) -> None:
    indented = [table(each).replace("\n", "\n  ") for each in (BEFORE, AFTER)]
    page = published(tmp_path / "page.md", f"- **Fast**: {rate(BEFORE)}\n- table:\n\n  {indented[0]}\n")
    assert page == f"- **Fast**: {rate(AFTER)}\n- table:\n\n  {indented[1]}\n"


def test_a_text_without_figures_is_nowhere_missing(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("A page.\n")
    pages = {page: (lambda results: results["text"],)}
    publish(pages, {}, {"text": "Some."})
    assert page.read_text() == "A page.\n"
    assert missing(pages, {"text": "Some."}) == ["page.md: Some."]
