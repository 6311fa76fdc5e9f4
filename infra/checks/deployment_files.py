"""What must agree between the files that deploy the service: names, ports, commands, networks, secrets."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from infra.checks.containers import Dockerfile, read_compose, variables
from shared.settings import Settings

_SETTINGS = {name.upper() for name in Settings.model_fields}
#: What others than `Settings` read: gunicorn's configuration, Celery, Flower, Python, the shell.
_OTHERS = {
    "HOST", "PORT", "API_PROCESSES", "REMAP_SIGTERM", "CELERY_BROKER_URL", "FLOWER_BASIC_AUTH", "PATH", "HOME",
    "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED",
}  # fmt: skip
#: What the compose file insists on.
_REQUIRED = ("JWT_SECRET_KEY",)
_SECRET = re.compile(r"SECRET|PASSWORD|_KEY$|AUTH$|TOKEN", re.IGNORECASE)
_REFERENCE = re.compile(r"\$\{(?:[^{}]|\{[^{}]*\})*\}")
_KEYS = re.compile(
    r"AKIA[0-9A-Z]{16}|gh[pousr]_\w{36}|sk-\w{20}|-----BEGIN [A-Z ]*PRIVATE KEY|://[^\s/:@$]*:[^\s/@${}]+@"
)


@dataclass(frozen=True)
class Files:
    """The files below a folder; in the compose file no variable is set but the one that must be."""

    root: Path

    @cached_property
    def dockerfiles(self) -> dict[str, Dockerfile]:
        return {name: Dockerfile.read(self.root / f"Dockerfile.{name}") for name in ("api", "worker")}

    @cached_property
    def compose(self) -> dict[str, Any]:
        return read_compose(self.root / "docker-compose.yml", dict.fromkeys(_REQUIRED, "x"))

    @cached_property
    def as_written(self) -> dict[str, Any]:
        loaded: dict[str, Any] = yaml.safe_load(self.text("docker-compose.yml"))
        return loaded

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.compose["services"]
        return found

    def ours(self) -> Iterator[tuple[str, dict[str, Any], Dockerfile]]:
        """The services whose images are ours, each with its Dockerfile."""
        for name, service in self.services.items():
            if "build" in service:
                yield name, service, Dockerfile.read(self.root / service["build"]["dockerfile"])

    def text(self, path: str) -> str:
        return (self.root / path).read_text()


def findings(root: Path) -> list[str]:
    """A sentence for each disagreement between the files below this folder."""
    files = Files(root)
    return [finding for rule in RULES for finding in rule(files)]


def names(files: Files) -> Iterator[str]:
    """Every variable that is set or read is one that something knows."""
    for name, service in files.services.items():
        if "build" in service:
            for variable in service.get("environment", {}).keys() - _SETTINGS - _OTHERS:
                yield f"docker-compose.yml: {name} sets {variable}, which nothing reads"
    for name, dockerfile in files.dockerfiles.items():
        for variable in dockerfile.environment.keys() - _SETTINGS - _OTHERS:
            yield f"Dockerfile.{name} sets {variable}, which nothing reads"
    known = set(re.findall(r"^(?:# ?)?([A-Z_]+)=", files.text(".env.example"), re.MULTILINE))
    for variable in variables(files.text("docker-compose.yml")) - known:
        yield f"docker-compose.yml reads {variable}, which is not in .env.example"


def ports(files: Files) -> Iterator[str]:
    """A port is the same where it is listened on, asked for, exposed and published."""
    api, services = files.dockerfiles["api"], files.services
    yield from _differing(
        "the API's port",
        {
            "gunicorn.conf.py": _found(r"'PORT', '(\d+)'", files.text("infra/gunicorn.conf.py").replace('"', "'")),
            "ENV of Dockerfile.api": api.environment.get("PORT", ""),
            "EXPOSE of Dockerfile.api": api.last("EXPOSE"),
            "HEALTHCHECK of Dockerfile.api": _found(r"://[^/:]+:(\d+)/", " ".join(api.healthcheck)),
            "environment of docker-compose.yml": services["api"]["environment"].get("PORT", ""),
            "ports of docker-compose.yml": services["api"]["ports"][0].rpartition(":")[2],
        },
    )
    flower = services["flower"]
    yield from _differing(
        "Flower's port",
        {
            "its command": _found(r"--port=(\d+)", " ".join(flower["command"])),
            "its healthcheck": _found(r"://[^/:]+:(\d+)/", " ".join(flower["healthcheck"]["test"])),
            "its published port": flower["ports"][0].rpartition(":")[2],
        },
    )
    settings, redis = services["api"]["environment"], services["redis"]
    yield from _differing(
        "Redis's port",
        {
            "REDIS_URL": str(urlsplit(settings["REDIS_URL"]).port),
            "CELERY_BROKER_URL": str(urlsplit(flower["environment"]["CELERY_BROKER_URL"]).port),
            "its configuration": _found(r"^port (\d+)$", redis["command"][-1]),
            "its healthcheck": _found(r"-p (\d+)", redis["healthcheck"]["test"][-1]),
        },
    )
    checked = services["postgres"]["healthcheck"]["test"]
    yield from _differing(
        "PostgreSQL's port",
        {"DATABASE_URL": str(urlsplit(settings["DATABASE_URL"]).port), "its healthcheck": _after("-p", checked)},
    )


def addresses(files: Files) -> Iterator[str]:
    """Each address names a service on a network of whoever uses it, and the database is the one that is made."""
    services = files.services
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            host = urlsplit(value).hostname if variable.endswith("_URL") else None
            # The migrations read all settings, and use only the database.
            if host is None or (name, variable) == ("migrate", "REDIS_URL"):
                continue
            if host not in services:
                yield f"docker-compose.yml: {name}'s {variable} names {host}, which is no service"
            elif not set(services[host]["networks"]) & set(service["networks"]):
                yield f"docker-compose.yml: {name} shares no network with {host}"
    url, made = urlsplit(services["api"]["environment"]["DATABASE_URL"]), services["postgres"]["environment"]
    yield from _differing("the database", {"DATABASE_URL": url.path[1:], "POSTGRES_DB": made["POSTGRES_DB"]})
    yield from _differing("its user", {"DATABASE_URL": url.username or "", "POSTGRES_USER": made["POSTGRES_USER"]})


def commands(files: Files) -> Iterator[str]:
    """What is started exists, is in the image, and is started without a shell."""
    requirements = files.text("requirements.txt")
    for name, service, dockerfile in files.ours():
        command = service.get("command") or dockerfile.command
        if not isinstance(command, list) or not command:
            yield f"{name}: the command is not in exec form, so a shell would keep signals from it"
            continue
        if not re.search(rf"^{command[0]}==", requirements, re.MULTILINE):
            yield f"{name}: {command[0]} is not in requirements.txt"
        copied = {source for line in dockerfile.all("COPY") if "--from" not in line for source in line.split()[:-1]}
        for module in re.findall(r"\b(?:api|worker|shared)\.\w+", " ".join([*command, *dockerfile.healthcheck])):
            path = module.replace(".", "/") + ".py"
            if not (files.root / path).exists() or path.split("/")[0] not in copied:
                yield f"{name}: {path} is not there or not in the image"
        for path in (argument for argument in command if argument.endswith(".py")):
            if not (files.root / path).exists() or path not in copied:
                yield f"{name}: {path} is not there or not in the image"
    kept = re.findall(r"^!(\S+)", files.text(".dockerignore"), re.MULTILINE)
    for name, dockerfile in files.dockerfiles.items():
        for line in [arguments for stage in dockerfile.stages for each, arguments in stage if each == "COPY"]:
            for source in [] if "--from" in line else line.split()[:-1]:
                if source.replace("[t]", "t") not in kept:
                    yield f"Dockerfile.{name} copies {source}, which .dockerignore leaves out"


def secrets(files: Files) -> Iterator[str]:
    """No secret stands in a file."""
    for name, service in files.as_written["services"].items():
        for variable, value in service.get("environment", {}).items():
            without = _REFERENCE.sub("", str(value))
            if _SECRET.search(variable) and ("${" not in str(value) or re.search(r"[^:]$", without)):
                yield f"docker-compose.yml: {name}'s {variable} is written out; it belongs into .env"
    for dockerfile in ("Dockerfile.api", "Dockerfile.worker"):
        for variable in re.findall(r"(?:^(?:ARG|ENV) |\s)(\w+)=", files.text(dockerfile), re.MULTILINE):
            if _SECRET.search(variable):
                yield f"{dockerfile} sets {variable}, which would stay in the image"
    workflows = sorted(str(path.relative_to(files.root)) for path in files.root.glob(".github/workflows/*.yml"))
    for path in ("Dockerfile.api", "Dockerfile.worker", "docker-compose.yml", *workflows):
        for found in _KEYS.finditer(files.text(path)):
            yield f"{path} has what looks like a secret: {found[0][:8]}…"


def images(files: Files) -> Iterator[str]:
    """Images are pinned, ours have one base, and are pushed by the names that they are run by."""
    api, worker = files.dockerfiles["api"], files.dockerfiles["worker"]
    if api.stages[:-1] != worker.stages[:-1]:
        yield "Dockerfile.api and Dockerfile.worker differ in more than their last stage"
    for name, service in files.services.items():
        if "build" not in service and not re.search(r":\d+(\.\d+)+", service["image"]):
            yield f"docker-compose.yml: {name}'s image {service['image']} is not pinned to a version"
    for name, service, dockerfile in files.ours():
        if service["image"] != f"promptwire-{service['build']['dockerfile'].partition('.')[2]}:latest":
            yield f"docker-compose.yml: {name}'s image {service['image']} is not what its Dockerfile makes"
        if not re.fullmatch(r"\d{4,}:\d{4,}", dockerfile.last("USER")):
            yield f"{service['build']['dockerfile']}: USER is not a number of its own, so it may be root"


def exposure(files: Files) -> Iterator[str]:
    """Only the API and Flower can be reached, and the servers reach nothing."""
    inner = {name for name, network in files.compose["networks"].items() if network.get("internal")}
    for name, service in files.services.items():
        unknown = set(service["networks"]) - files.compose["networks"].keys()
        if unknown:
            yield f"docker-compose.yml: {name}'s network {unknown.pop()} is not there"
        if service.get("ports") and name not in ("api", "flower"):
            yield f"docker-compose.yml: {name} has a published port"
        if name in ("postgres", "redis", "migrate") and not set(service["networks"]) <= inner:
            yield f"docker-compose.yml: {name} is on a network that is not internal"
        if "container_name" in service:
            yield f"docker-compose.yml: {name} has a fixed name, so there cannot be two"
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                yield f"docker-compose.yml: {name} is published to everybody unless told otherwise"


def hardening(files: Files) -> Iterator[str]:
    """Every container has as few rights as it needs, limits, and a sign of health."""
    for name, service in files.services.items():
        wanted: dict[str, bool] = {
            "read_only": service.get("read_only") is True,
            "cap_drop": service.get("cap_drop") == ["ALL"],
            "security_opt": "no-new-privileges:true" in service.get("security_opt", []),
            "restart": "restart" in service,
            "logging": "max-size" in service.get("logging", {}).get("options", {}),
            "memory": "memory" in service.get("deploy", {}).get("resources", {}).get("limits", {}),
            "stop_grace_period": "stop_grace_period" in service or name == "migrate",
        }
        for what, there in wanted.items():
            if not there:
                yield f"docker-compose.yml: {name} lacks {what}"
        if "healthcheck" not in service and "build" not in service:
            yield f"docker-compose.yml: {name} has no healthcheck"
    for name, dockerfile in files.dockerfiles.items():
        if not dockerfile.healthcheck:
            yield f"Dockerfile.{name} has no HEALTHCHECK in exec form"
    graces = {
        name: int(str(files.services[name].get("stop_grace_period", "0")).rstrip("s")) for name in ("api", "worker")
    }
    graceful = int(_found(r"^graceful_timeout = (\d+)", files.text("infra/gunicorn.conf.py")) or 0)
    if graces["api"] <= graceful:
        yield f"docker-compose.yml: the API is killed before its graceful_timeout of {graceful} s is over"
    soft = Settings.model_fields["soft_shutdown_seconds"].default
    if graces["worker"] <= soft:
        yield f"docker-compose.yml: a worker is killed before its SOFT_SHUTDOWN_SECONDS of {soft} s are over"


def targets(files: Files) -> Iterator[str]:
    """What the workflows make can be made."""
    made = set(re.findall(r"^([a-z-]+):", files.text("Makefile"), re.MULTILINE))
    for path in files.root.glob(".github/workflows/*.yml"):
        for target in re.findall(r"\bmake ([a-z-]+)", path.read_text()):
            if target not in made:
                yield f"{path.name}: there is no target {target} in the Makefile"


RULES: tuple[Callable[[Files], Iterator[str]], ...] = (
    names, ports, addresses, commands, secrets, images, exposure, hardening, targets,
)  # fmt: skip


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else ""


def _after(flag: str, command: list[str]) -> str:
    return command[command.index(flag) + 1] if flag in command else ""


def _differing(what: str, places: dict[str, str]) -> Iterator[str]:
    if len(set(places.values())) > 1:
        yield f"{what} differs: " + ", ".join(f"{value or 'none'} in {place}" for place, value in places.items())
