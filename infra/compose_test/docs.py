"""The commands of the documentation, as they are written there."""

import re
from pathlib import Path


def read_commands(page: Path, section: str) -> list[str]:
    """The lines of the first block of code below a heading."""
    return read_blocks(page, section)[0].splitlines()


def read_blocks(page: Path, section: str) -> list[str]:
    """The blocks of code between a heading and the next one."""
    found = re.search(rf"^##+ {re.escape(section)}$(.*?)(?=^##+ |\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```\n(.*?)^```$", found[1], re.MULTILINE | re.DOTALL) if found else []
    if not blocks:
        raise ValueError(f"{page.name} has no commands below {section}")
    return blocks
