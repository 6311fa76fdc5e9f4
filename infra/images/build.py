"""Build images with buildah. A Debian from debootstrap, with its own Python, replaces the base image."""

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BASE_IMAGE = "localhost/python-base"
_RELEASE = "bookworm"  # its Python is 3.11, as in the real base
_PACKAGES = "python3,python3-venv,ca-certificates"
#: Options of the caller's pip that a build needs too.
_PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")
_CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")


class BuildError(Exception):
    """A command failed; the message contains its output."""


@dataclass(frozen=True)
class Image:
    """A built image: its configuration, its mounted files, its size without the base, and the duration of the build."""

    name: str
    config: dict[str, Any]
    files: Path
    mebibytes: float
    seconds: float


class Builder:
    """buildah with its own storage below a folder, which later builds reuse."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._containers: list[str] = []

    def make_base(self) -> None:
        """Build the base image unless the storage has it; that takes a minute."""
        if self._buildah("images", "--quiet", BASE_IMAGE, check=False):
            return
        root = self._folder / "base"
        shutil.rmtree(root, ignore_errors=True)
        _run("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _RELEASE, str(root), *_mirror())
        (root / "usr/bin/python").symlink_to("python3")
        # The package index may be a mirror whose certificate only this machine trusts.
        if (Path("/") / _CERTIFICATES).exists():
            shutil.copy(Path("/") / _CERTIFICATES, root / _CERTIFICATES)
        container = self._buildah("from", "scratch")
        self._buildah("add", "--quiet", container, str(root), "/")
        self._buildah("commit", "--quiet", container, BASE_IMAGE)
        self._buildah("rm", container)
        shutil.rmtree(root)

    def build(self, name: str) -> Image:
        """Build Dockerfile.NAME with its first FROM replaced, and mount the image."""
        tag = f"localhost/promptwire-{name}"
        configuration = self._folder / "pip.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(_pip_configuration())
        started_at = time.monotonic()
        try:
            self._buildah(
                "build", "--isolation=chroot", "--format=docker", "--from", BASE_IMAGE, "--build-arg=REVISION=local",
                f"--secret=id=pip,src={configuration}", "--file", f"Dockerfile.{name}", "--tag", tag, str(ROOT),
            )  # fmt: skip
        finally:
            configuration.unlink()
        seconds = time.monotonic() - started_at
        container = self._buildah("from", "--pull-never", tag)
        self._containers.append(container)
        config = json.loads(self._buildah("inspect", "--type=image", tag))["Docker"]["config"]
        size = (self._bytes(tag) - self._bytes(BASE_IMAGE)) / 2**20
        return Image(name, config, Path(self._buildah("mount", container)), size, seconds)

    def close(self) -> None:
        for container in self._containers:
            self._buildah("rm", container)

    def _bytes(self, image: str) -> int:
        (found,) = json.loads(self._buildah("images", "--json", image))
        size = found["size"]
        return int(size) if isinstance(size, int) else _parse_size(size)

    def _buildah(self, *arguments: str, check: bool = True) -> str:
        storage = (f"--root={self._folder / 'storage'}", f"--runroot={self._folder / 'run'}")
        return _run("buildah", *storage, *arguments, check=check)


def _parse_size(text: str) -> int:
    number, unit = text.split()
    return int(float(number) * 1000 ** ("B", "KB", "MB", "GB").index(unit.upper()))


def _mirror() -> list[str]:
    """The mirror from which this machine gets its Debian packages, if it runs the same release."""
    wanted = ("Created-By: Packages", f"Codename: {_RELEASE}", "Label: Debian")
    if shutil.which("apt-get") is None:
        return []
    return _run("apt-get", "indextargets", "--format", "$(REPO_URI)", *wanted, check=False).splitlines()[:1]


def _pip_configuration() -> str:
    """The caller's package index. The build gets it as a secret, so no layer contains it."""
    lines = _run("python3", "-m", "pip", "config", "list", check=False).splitlines()
    options = {
        name.rpartition(".")[2]: value.strip("'\"") for name, _, value in (line.partition("=") for line in lines)
    }
    kept = {name: value for name, value in options.items() if name in _PIP_OPTIONS and "file://" not in value}
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in kept.items())


def _run(*command: str, check: bool = True) -> str:
    result = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    if check and result.returncode != 0:
        raise BuildError(f"{' '.join(command)}:\n{(result.stdout + result.stderr)[-4000:]}")
    return result.stdout.strip()
