"""`make check-infra`: runs every check, says what each found, and fails if one failed or could not be made.

The tools come from pip (requirements/infra.txt). With --if-possible, what cannot be checked here is said, and does not
count.
"""

import argparse
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.checks.deployment_files import findings

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".venv-infra"
_TERRAFORM_FORMAT = Path(__file__).with_name("terraform_format.py")
# A key of the length that production wants, for what only looks at the form.
_ANY_SECRET = "k3Yn8" * 10


class CannotCheckError(Exception):
    """The tool is not on this machine; the message says which."""


@dataclass(frozen=True)
class Check:
    """A command, run at the root of the files that it looks at."""

    name: str
    command: list[str]

    def run(self, root: Path) -> str:
        """What it found; empty if all is well. Raises CannotCheckError."""
        with _with_dotenv(root) as files:
            command = [argument.replace("{files}", str(files)) for argument in self.command]
            # Compose would read this shell's variables.
            environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
            try:
                result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
            except OSError as error:
                raise CannotCheckError(f"{command[0]}: {error.strerror}") from error
        return "" if result.returncode == 0 else (result.stdout + result.stderr).strip() or "it failed"


def checks(tools: Path = TOOLS) -> list[Check]:
    """Those that are programs, from the environment `tools`, or the system's."""

    def program(name: str) -> str:
        return str(tools / "bin" / name)

    # The program itself: the wrapper in bin/ ends with 0 whatever it found.
    compose = next(iter(tools.glob("lib/python*/site-packages/compose/docker-compose")), tools / "docker-compose")
    schema = [program("check-jsonschema"), "--builtin-schema"]
    return [
        Check("Dockerfiles: hadolint", [program("hadolint"), "Dockerfile.api", "Dockerfile.worker"]),
        Check("Compose: schema", [*schema, "vendor.compose-spec", "docker-compose.yml"]),
        Check("Compose: Compose itself", [str(compose), "--project-directory", "{files}", "config", "--quiet"]),
        Check("Workflows: schema", [*schema, "vendor.github-workflows", ".github/workflows/ci.yml"]),
        Check("Dependabot: schema", [*schema, "vendor.dependabot", ".github/dependabot.yml"]),
        Check("Workflows: actionlint", [program("actionlint"), ".github/workflows/ci.yml"]),
        Check("Workflows: zizmor", [program("zizmor"), "--offline", "--quiet", "--no-progress", ".github"]),
        Check("Terraform: format", [program("python"), str(_TERRAFORM_FORMAT), "infra/aws"]),
        Check(
            "Terraform: checkov",
            [program("checkov"), "--skip-download", "--quiet", "--compact", "--framework=terraform", "-d", "infra/aws"],
        ),
    ]


@contextlib.contextmanager
def _with_dotenv(root: Path) -> Iterator[Path]:
    """A folder with the compose file and a copy of .env.example, in which only the secret was filled in."""
    with TemporaryDirectory() as folder:
        files = Path(folder)
        (files / "docker-compose.yml").write_text((root / "docker-compose.yml").read_text())
        example = (root / ".env.example").read_text()
        (files / ".env").write_text(re.sub(r"^JWT_SECRET_KEY=$", f"JWT_SECRET_KEY={_ANY_SECRET}", example, flags=re.M))
        yield files


def main() -> int:
    parser = argparse.ArgumentParser(prog="make check-infra")
    parser.add_argument("--if-possible", action="store_true", help="pass where a tool cannot be had")
    parser.add_argument("--tools", type=Path, default=TOOLS, metavar="FOLDER", help="the environment that has them")
    arguments = parser.parse_args()
    failed = _tell("Names, ports, networks, secrets", "\n".join(findings(ROOT)))
    unchecked = False
    for check in checks(arguments.tools):
        try:
            failed |= _tell(check.name, check.run(ROOT))
        except CannotCheckError as error:
            print(f"NOT CHECKED  {check.name}: {error}")
            unchecked = True
    if not (ROOT / "infra/aws" / ".terraform").exists():
        print("NOT CHECKED  Terraform: validate. It needs the AWS provider (terraform init); the workflow does it.")
    return 1 if failed or (unchecked and not arguments.if_possible) else 0


def _tell(name: str, found: str) -> bool:
    """Prints what a check found. Returns whether it found anything."""
    print(f"FAILED       {name}\n{found}" if found else f"ok           {name}", flush=True)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
