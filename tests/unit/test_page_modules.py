"""Modules of the page that need no browser: their tests in `page`, by Node's test runner."""

import subprocess
from pathlib import Path

import pytest

from tests.support import npm
from tests.support.servers import MAX_WAIT_SECONDS

SUITES = sorted((Path(__file__).parent / "page").glob("*.test.mjs"))


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name.partition(".")[0])
def test_a_module(suite: Path) -> None:
    command = [npm.node(), "--test", "--test-reporter=spec", str(suite)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MAX_WAIT_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
