"""Containers: what can reach them, what they may do, and how they stop."""

import re
from collections.abc import Iterator

from infra.checks.deployment_files import DeploymentFiles
from infra.checks.rules.text import search
from shared.settings import Settings


def exposure(files: DeploymentFiles) -> Iterator[str]:
    """Only the API and Flower are published, to this machine by default; the servers reach no other network."""
    internal = {name for name, network in files.compose["networks"].items() if network.get("internal")}
    for name, service in files.services.items():
        if service.get("ports") and name not in ("api", "flower"):
            yield f"docker-compose.yml: {name} has a published port"
        if name in ("postgres", "redis", "migrate") and not service["networks"].keys() <= internal:
            yield f"docker-compose.yml: {name} is on a network that is not internal"
        if "container_name" in service:
            yield f"docker-compose.yml: {name} has a fixed name, so it cannot be scaled"
        for port in service.get("ports", []):
            if port.get("host_ip") != "127.0.0.1":
                yield f"docker-compose.yml: {name} is published to other machines by default"


def hardening(files: DeploymentFiles) -> Iterator[str]:
    """Every container has limits and no more rights than it needs."""
    for name, service in files.services.items():
        required = {
            "read_only": service.get("read_only") is True,
            "cap_drop": service.get("cap_drop") == ["ALL"],
            "security_opt": "no-new-privileges:true" in service.get("security_opt", []),
            "restart": "restart" in service,
            "logging": "max-size" in service.get("logging", {}).get("options", {}),
            "memory": "memory" in service.get("deploy", {}).get("resources", {}).get("limits", {}),
            "stop_grace_period": "stop_grace_period" in service or name == "migrate",
        }
        for what, is_set in required.items():
            if not is_set:
                yield f"docker-compose.yml: {name} lacks {what}"


def health_checks(files: DeploymentFiles) -> Iterator[str]:
    """Every container has a health check."""
    own = {name for name, _, _ in files.own_services()}
    for name, service in files.services.items():
        if "healthcheck" not in service and name not in own:
            yield f"docker-compose.yml: {name} has no healthcheck"
    for name, dockerfile in files.dockerfiles.items():
        if not dockerfile.healthcheck:
            yield f"Dockerfile.{name} has no HEALTHCHECK in exec form"


def stop_times(files: DeploymentFiles) -> Iterator[str]:
    """A container is killed only after the time in which its process stops by itself."""
    graceful = int(search(r"^graceful_timeout = (\d+)", files.text("infra/gunicorn.conf.py")) or 0)
    if _stop_grace_seconds(files, "api") <= graceful:
        yield f"docker-compose.yml: the API is killed before its graceful_timeout of {graceful} s is over"
    soft = Settings.model_fields["soft_shutdown_seconds"].default
    if _stop_grace_seconds(files, "worker") <= soft:
        yield f"docker-compose.yml: a worker is killed before its SOFT_SHUTDOWN_SECONDS of {soft} s are over"


def _stop_grace_seconds(files: DeploymentFiles, service: str) -> int:
    """Compose writes durations as 1m30s or 30s."""
    duration = files.services[service].get("stop_grace_period", "0s")
    minutes, seconds = re.fullmatch(r"(?:(\d+)m)?(\d+)s", duration).groups()  # type: ignore[union-attr]
    return 60 * int(minutes or 0) + int(seconds)
