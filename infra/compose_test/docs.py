"""The commands of the documentation, as they are written there."""

import re
from pathlib import Path


def read_commands(page: Path, section: str) -> list[str]:
    """The lines of the first block of code below a heading."""
    found = re.search(rf"^## {re.escape(section)}$.*?^```\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"{page.name} has no commands below {section}")
    return found[1].splitlines()
