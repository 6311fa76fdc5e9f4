"""A port is the same wherever it is listened on, connected to, exposed and published."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from infra.checks.deployment_files import DeploymentFiles
from infra.checks.rules.text import differences, search
from shared.settings import Settings


def ports(files: DeploymentFiles) -> Iterator[str]:
    yield from differences("the API's port", _api_ports(files))
    yield from differences("Flower's port", _flower_ports(files.services["flower"]))
    yield from differences("Redis's port", _redis_ports(files.services))
    yield from differences("PostgreSQL's port", _postgres_ports(files.services))


def _api_ports(files: DeploymentFiles) -> dict[str, str]:
    dockerfile, service = files.dockerfiles["api"], files.services["api"]
    return {
        "the settings": str(Settings.model_fields["port"].default),
        "ENV of Dockerfile.api": dockerfile.environment.get("PORT", ""),
        "EXPOSE of Dockerfile.api": dockerfile.last("EXPOSE"),
        "HEALTHCHECK of Dockerfile.api": search(r"://[^/:]+:(\d+)/", " ".join(dockerfile.healthcheck)),
        "environment of docker-compose.yml": service["environment"].get("PORT", ""),
        "ports of docker-compose.yml": str(service["ports"][0]["target"]),
    }


def _flower_ports(service: dict[str, Any]) -> dict[str, str]:
    return {
        "its environment": service["environment"].get("FLOWER_PORT", ""),
        "its healthcheck": search(r"://[^/:]+:(\d+)/", " ".join(service["healthcheck"]["test"])),
        "its published port": str(service["ports"][0]["target"]),
    }


def _redis_ports(services: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {
        "REDIS_URL": _port(services["api"]["environment"]["REDIS_URL"]),
        "REDIS_URL of Flower": _port(services["flower"]["environment"]["REDIS_URL"]),
        "its configuration": search(r"^port (\d+)$", services["redis"]["command"][-1]),
        "its healthcheck": search(r"-p (\d+)", services["redis"]["healthcheck"]["test"][-1]),
    }


def _postgres_ports(services: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {
        "DATABASE_URL": _port(services["api"]["environment"]["DATABASE_URL"]),
        "its healthcheck": search(r"-p (\d+)", " ".join(services["postgres"]["healthcheck"]["test"])),
    }


def _port(url: str) -> str:
    return str(urlsplit(url).port)
