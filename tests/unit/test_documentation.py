"""The pages: short where they must be, and every link leads to something."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.servers import ROOT

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "infra" / "architecture.md"]

_CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)|\bsrc=\"([^\"]+)\"")


def links(page: Path) -> list[str]:
    """The targets of all links and images that are not on another host."""
    targets = [link or image for link, image in _LINK.findall(_CODE.sub("", page.read_text()))]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _CODE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_has_at_most_150_lines() -> None:
    assert len(README.read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    missing = {link for link in links(page) if not (page.parent / link.partition("#")[0]).exists()}
    assert missing == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_into_a_page_leads_to_a_heading(page: Path) -> None:
    for link in links(page):
        path, _, fragment = link.partition("#")
        target = page.parent / path if path else page
        if fragment and target.suffix == ".md":
            assert fragment in anchors(target), link


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, to_read = set(), [README]
    while to_read:
        page = to_read.pop()
        reached.add(page)
        linked = {(page.parent / link.partition("#")[0]).resolve() for link in links(page)}
        to_read += [target for target in linked if target in PAGES and target not in reached]
    assert set(PAGES) - reached == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_and_module_of_a_command_exists(page: Path) -> None:
    commands = "\n".join(_CODE.findall(page.read_text()) + re.findall(r"`([^`\n]+)`", page.read_text()))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|&& | )make ([a-z][a-z-]*)", commands, re.MULTILINE)) <= targets
    modules = set(re.findall(r"python3? -m ((?:api|worker|shared|infra|tests)[\w.]*)", commands))
    assert {module for module in modules if find_spec(module) is None} == set()
