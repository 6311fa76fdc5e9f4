"""Names agree: environment variables, services, databases, make targets."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from infra.checks.deployment_files import DeploymentFiles
from infra.checks.rules.text import differences
from shared.settings import FlowerSettings, Settings

#: Variables that the settings do not contain, but Celery, Python or the shell reads.
_OTHER_VARIABLES = {
    "REMAP_SIGTERM", "PATH", "HOME", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED",
}  # fmt: skip
KNOWN_VARIABLES = {name.upper() for kind in (Settings, FlowerSettings) for name in kind.model_fields} | _OTHER_VARIABLES


def variables(files: DeploymentFiles) -> Iterator[str]:
    """Every variable that is set has a reader, and every variable that is read is in .env.example."""
    for name, service, _ in files.own_services():
        for variable in service.get("environment", {}).keys() - KNOWN_VARIABLES:
            yield f"docker-compose.yml: {name} sets {variable}, which nothing reads"
    for name, dockerfile in files.dockerfiles.items():
        for variable in dockerfile.environment.keys() - KNOWN_VARIABLES:
            yield f"Dockerfile.{name} sets {variable}, which nothing reads"
    example = set(re.findall(r"^(?:# ?)?([A-Z_]+)=", files.text(".env.example"), re.MULTILINE))
    read = set(re.findall(r"(?<!\$)\$\{(\w+)", files.text("docker-compose.yml")))
    for variable in read - example:
        yield f"docker-compose.yml reads {variable}, which is not in .env.example"


def addresses(files: DeploymentFiles) -> Iterator[str]:
    """Every URL names a service on a shared network, and DATABASE_URL names the database that is created."""
    services = files.services
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            host = urlsplit(value).hostname if variable.endswith("_URL") else None
            # The migrations read all settings but connect to the database only.
            if host is None or (name, variable) == ("migrate", "REDIS_URL"):
                continue
            if host not in services:
                yield f"docker-compose.yml: {name}'s {variable} names {host}, which is not a service"
            elif not services[host]["networks"].keys() & service["networks"].keys():
                yield f"docker-compose.yml: {name} shares no network with {host}"
    url = urlsplit(services["api"]["environment"]["DATABASE_URL"])
    created = services["postgres"]["environment"]
    yield from differences("the database", {"DATABASE_URL": url.path[1:], "POSTGRES_DB": created["POSTGRES_DB"]})
    yield from differences(
        "the database's user", {"DATABASE_URL": url.username or "", "POSTGRES_USER": created["POSTGRES_USER"]}
    )


def make_targets(files: DeploymentFiles) -> Iterator[str]:
    """Every make target that a workflow calls exists."""
    existing = set(re.findall(r"^([a-z-]+):", files.text("Makefile"), re.MULTILINE))
    for path in files.root.glob(".github/workflows/*.yml"):
        for target in re.findall(r"\bmake ([a-z-]+)", path.read_text()):
            if target not in existing:
                yield f"{path.name}: the Makefile has no target {target}"
