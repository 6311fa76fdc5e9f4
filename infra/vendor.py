"""`make vendor`: copy the page's JavaScript libraries from npm into api/static/vendor (needs npm).

`infra/vendor.json` pins each package by its version and by npm's checksum of its archive, and names the files that are
copied, unchanged. The checksums of those files are in `SHA256SUMS` beside them; a test compares both. To update a
library, change its version and its `integrity` (`npm view NAME dist.integrity`), and run this again.
"""

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PINS = Path(__file__).with_name("vendor.json")
FOLDER = Path(__file__).parents[1] / "api" / "static" / "vendor"
SUMS = "SHA256SUMS"


class WrongArchiveError(Exception):
    """An archive is not the pinned one."""


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.iterdir():
        path.unlink()
    try:
        for name, pin in json.loads(PINS.read_text()).items():
            vendor(name, pin)
    except (WrongArchiveError, subprocess.CalledProcessError, OSError) as error:
        print(f"make vendor: {error}", file=sys.stderr)
        return 1
    (FOLDER / SUMS).write_text(sums())
    return 0


def vendor(name: str, pin: dict[str, Any]) -> None:
    """Fetch a package, and copy its pinned files.

    Raises:
        WrongArchiveError: the archive has another checksum.
    """
    with TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"{name}@{pin['version']}", "--pack-destination", folder]
        subprocess.run(command, check=True, capture_output=True)
        (archive,) = Path(folder).iterdir()
        algorithm, _, expected = pin["integrity"].partition("-")
        digest = hashlib.new(algorithm, archive.read_bytes()).digest()
        if base64.b64encode(digest).decode() != expected:
            raise WrongArchiveError(f"the archive of {name} {pin['version']} does not have the pinned checksum")
        with tarfile.open(archive) as files:
            for source, target in pin["files"].items():
                (FOLDER / target).write_bytes(_read(files, f"package/{source}"))


def _read(files: tarfile.TarFile, name: str) -> bytes:
    file = files.extractfile(name)
    if file is None:
        raise WrongArchiveError(f"{name} is not a file")
    return file.read()


def sums() -> str:
    """The checksums of the files, as `sha256sum` writes them."""
    paths = sorted(path for path in FOLDER.iterdir() if path.name != SUMS)
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths)


if __name__ == "__main__":
    sys.exit(main())
