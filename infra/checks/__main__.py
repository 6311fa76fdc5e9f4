"""`make check-infra`: run every check, print the result of each, and fail if one failed or could not be run.

The tools are pip packages (requirements/infra.txt). With --if-possible, a check whose tool is missing is reported and
does not fail the run.
"""

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.checks.compose import compose_folder, find_compose
from infra.checks.helm import objects as helm
from infra.checks.helm import rules as chart_rules
from infra.checks.rules import find_problems
from infra.checks.tools import ROOT, TOOLS, ToolMissingError, run_tool

_TERRAFORM = Path(__file__).with_name("terraform")
_HELM = [str(helm.PROGRAM), helm.CHART]
# As long as production requires. Compose checks only that it is set.
_PLACEHOLDER_SECRET = "k3Yn8" * 10


@dataclass(frozen=True)
class Check:
    """A command that checks the files of a folder. `{compose_folder}` in it stands for a copy of the compose file."""

    name: str
    command: list[str]

    def run(self, root: Path) -> str:
        """Return what the command found; empty if it found nothing. Raises ToolMissingError."""
        example = (root / ".env.example").read_text()
        dotenv = re.sub(r"^JWT_SECRET_KEY=$", f"JWT_SECRET_KEY={_PLACEHOLDER_SECRET}", example, flags=re.MULTILINE)
        with compose_folder(root, dotenv) as folder:
            command = [argument.replace("{compose_folder}", str(folder)) for argument in self.command]
            result = run_tool(command, root)
        return "" if result.returncode == 0 else (result.stdout + result.stderr).strip() or "it failed"


def list_checks(tools: Path = TOOLS) -> list[Check]:
    """The checks that are programs of their own, from the environment `tools`."""

    def program(name: str) -> str:
        return str(tools / "bin" / name)

    schema = [program("check-jsonschema"), "--builtin-schema"]
    compose = [str(find_compose(tools)), "--project-directory", "{compose_folder}", "config", "--quiet"]
    return [
        Check("Dockerfiles: hadolint", [program("hadolint"), "Dockerfile.api", "Dockerfile.worker"]),
        Check("Compose: schema", [*schema, "vendor.compose-spec", "docker-compose.yml"]),
        Check("Compose: Compose itself", compose),
        Check("Workflows: schema", [*schema, "vendor.github-workflows", ".github/workflows/ci.yml"]),
        Check("Dependabot: schema", [*schema, "vendor.dependabot", ".github/dependabot.yml"]),
        Check("Workflows: actionlint", [program("actionlint"), ".github/workflows/ci.yml"]),
        Check("Workflows: zizmor", [program("zizmor"), "--offline", "--quiet", "--no-progress", ".github"]),
        Check("Terraform: format", [program("python"), str(_TERRAFORM / "format.py"), "infra/aws"]),
        Check("Terraform: validate", [program("python"), str(_TERRAFORM / "validate.py"), "infra/aws"]),
        Check(
            "Terraform: checkov",
            [program("checkov"), "--skip-download", "--quiet", "--compact", "--framework=terraform", "-d", "infra/aws"],
        ),
        Check("Helm: chart and Kubernetes' schemas", [program("python"), *_HELM]),
        Check("Helm: checkov", [program("python"), *_HELM, "--checkov"]),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make check-infra")
    parser.add_argument("--if-possible", action="store_true", help="do not fail because a tool is missing")
    parser.add_argument("--tools", type=Path, default=TOOLS, metavar="FOLDER", help="the environment with the tools")
    arguments = parser.parse_args()

    def compare_files(root: Path) -> str:
        return "\n".join(find_problems(root, tools=arguments.tools))

    def compare_objects(root: Path) -> str:
        return "\n".join(chart_rules.find_problems(root, tools=arguments.tools))

    checks = [("Names, ports, networks, secrets", compare_files), ("Helm: rules", compare_objects)]
    checks += [(check.name, check.run) for check in list_checks(arguments.tools)]
    states = {_run(name, check) for name, check in checks}
    accepted = {"ok", "NOT CHECKED"} if arguments.if_possible else {"ok"}
    return 0 if states <= accepted else 1


def _run(name: str, check: Callable[[Path], str]) -> str:
    """Run a check and print its result. Return ok, FAILED, or NOT CHECKED."""
    try:
        found = check(ROOT)
    except ToolMissingError as error:
        state, details = "NOT CHECKED", f": {error}"
    else:
        state, details = ("FAILED", f"\n{found}") if found else ("ok", "")
    print(f"{state:11}  {name}{details}", flush=True)
    return state


if __name__ == "__main__":
    sys.exit(main())
