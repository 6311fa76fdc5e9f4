"""The files that deploy the service, as the rules read them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from infra.checks.compose import read_compose
from infra.checks.dockerfile import Dockerfile
from infra.checks.tools import TOOLS

# The variables that the compose file requires. Their values are irrelevant here.
_REQUIRED_VARIABLES = ("JWT_SECRET_KEY",)


@dataclass(frozen=True)
class DeploymentFiles:
    """The files below a folder. Compose, which resolves docker-compose.yml, comes from the environment `tools`."""

    root: Path
    tools: Path = TOOLS

    @cached_property
    def dockerfiles(self) -> dict[str, Dockerfile]:
        return {name: Dockerfile.read(self.root / f"Dockerfile.{name}") for name in ("api", "worker")}

    @cached_property
    def compose(self) -> dict[str, Any]:
        """docker-compose.yml with defaults for all variables. Raises ComposeError and ToolMissingError."""
        return read_compose(self.root, dict.fromkeys(_REQUIRED_VARIABLES, "x"), tools=self.tools)

    @cached_property
    def unresolved_compose(self) -> dict[str, Any]:
        """docker-compose.yml with its variables as written."""
        loaded: dict[str, Any] = yaml.safe_load(self.text("docker-compose.yml"))
        return loaded

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.compose["services"]
        return found

    def own_services(self) -> Iterator[tuple[str, dict[str, Any], Dockerfile]]:
        """The services that run an image that is built here, each with its Dockerfile."""
        built = {each["image"]: each["build"]["dockerfile"] for each in self.services.values() if "build" in each}
        for name, service in self.services.items():
            if service["image"] in built:
                yield name, service, Dockerfile.read(self.root / built[service["image"]])

    def text(self, path: str) -> str:
        return (self.root / path).read_text()
