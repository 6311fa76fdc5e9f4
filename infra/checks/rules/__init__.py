"""Rules for the files that deploy the service: each takes the files and yields a sentence for each problem."""

from collections.abc import Callable, Iterator
from pathlib import Path

from infra.checks.compose import ComposeError
from infra.checks.deployment_files import DeploymentFiles
from infra.checks.rules import containers, images, names, ports, secrets
from infra.checks.tools import TOOLS

RULES: tuple[Callable[[DeploymentFiles], Iterator[str]], ...] = (
    names.variables,
    names.addresses,
    names.make_targets,
    ports.ports,
    images.commands,
    images.copied_files,
    images.image_names,
    secrets.secrets,
    containers.exposure,
    containers.hardening,
    containers.health_checks,
    containers.stop_times,
)


def find_problems(root: Path, *, tools: Path = TOOLS) -> list[str]:
    """Return a sentence for each problem in the files below `root`. Raises ToolMissingError if Compose is missing."""
    files = DeploymentFiles(root, tools)
    try:
        return [problem for rule in RULES for problem in rule(files)]
    except ComposeError as error:
        return [f"docker-compose.yml: {error}"]
