"""The Kubernetes objects that the chart creates with one set of values, as the rules read them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from infra.checks.deployment_files import DeploymentFiles
from infra.checks.tools import TOOLS, run_tool

CHART = "infra/helm/promptwire"
PROGRAM = Path(__file__).with_name("chart.py")

Manifest = dict[str, Any]


class ChartError(Exception):
    """Helm cannot render the chart; the message is Helm's own."""


@dataclass(frozen=True)
class Container:
    """A container, with its pod, and the object that creates that."""

    owner: Manifest
    pod: Manifest
    body: Manifest

    @property
    def name(self) -> str:
        return str(self.body["name"])

    @property
    def kind(self) -> str:
        return str(self.owner["kind"])

    @property
    def values(self) -> dict[str, str]:
        """The variables that are written out."""
        return {each["name"]: each["value"] for each in self.body.get("env", []) if "value" in each}

    @property
    def secrets(self) -> dict[str, Manifest]:
        """The variables that come from a secret, and what they refer to."""
        return {each["name"]: each["valueFrom"] for each in self.body.get("env", []) if "valueFrom" in each}

    @property
    def ports(self) -> dict[str, int]:
        return {each["name"]: each["containerPort"] for each in self.body.get("ports", [])}


@dataclass(frozen=True)
class Objects:
    """What the chart creates, and the other files that deploy the service."""

    manifests: list[Manifest]
    files: DeploymentFiles

    @cached_property
    def containers(self) -> dict[str, Container]:
        found = {}
        for owner in self.manifests:
            pod = owner.get("spec", {}).get("template", {}).get("spec", {})
            for body in pod.get("containers", []):
                found[body["name"]] = Container(owner, pod, body)
        return found

    def all(self, *kinds: str) -> Iterator[Manifest]:
        return (manifest for manifest in self.manifests if manifest["kind"] in kinds)


def render(root: Path, *, tools: Path = TOOLS) -> dict[str, list[Manifest]]:
    """Return the chart's objects for each of its ci/*-values.yaml.

    Raises:
        ChartError: Helm refuses the chart.
        ToolMissingError: Helm is not installed in `tools`.
    """
    result = run_tool([str(tools / "bin" / "python"), str(PROGRAM), str(root / CHART), "--json"], root)
    if result.returncode != 0:
        raise ChartError((result.stdout + result.stderr).strip())
    rendered: dict[str, list[Manifest]] = json.loads(result.stdout)
    return rendered
