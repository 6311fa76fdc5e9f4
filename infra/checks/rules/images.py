"""Images: what they contain, what they start, and how they are named."""

import re
from collections.abc import Iterator

from infra.checks.deployment_files import DeploymentFiles


def commands(files: DeploymentFiles) -> Iterator[str]:
    """Every command is in exec form, and its program, modules and files are in the image."""
    requirements = files.text("requirements.txt")
    for name, service, dockerfile in files.own_services():
        command = service.get("command") or dockerfile.command
        if not command:
            yield f"{name}: the command is not in exec form, so a shell would keep signals from it"
            continue
        if command[0] != "python" and not re.search(rf"^{command[0]}==", requirements, re.MULTILINE):
            yield f"{name}: {command[0]} is not in requirements.txt"
        copied = set(_copied(dockerfile.all("COPY")))
        modules = re.findall(r"\b(?:api|worker|shared)\.\w+", " ".join([*command, *dockerfile.healthcheck]))
        for path in (module.replace(".", "/") + ".py" for module in modules):
            if not (files.root / path).exists() or path.split("/")[0] not in copied:
                yield f"{name}: {path} does not exist or is not in the image"
        for path in (argument for argument in command if argument.endswith(".py")):
            if not (files.root / path).exists() or path not in copied:
                yield f"{name}: {path} does not exist or is not in the image"


def copied_files(files: DeploymentFiles) -> Iterator[str]:
    """.dockerignore keeps everything that is copied."""
    kept = re.findall(r"^!(\S+)", files.text(".dockerignore"), re.MULTILINE)
    for name, dockerfile in files.dockerfiles.items():
        lines = [arguments for stage in dockerfile.stages for each, arguments in stage if each == "COPY"]
        for source in _copied(lines):
            if source.replace("[t]", "t") not in kept:
                yield f"Dockerfile.{name} copies {source}, which .dockerignore excludes"


def image_names(files: DeploymentFiles) -> Iterator[str]:
    """Foreign images are pinned. Ours share a base, do not run as root, and have the name of their Dockerfile.

    One service builds an image: Compose labels what it builds with the service's name, so the image of two services
    would change with each build, and their containers would be recreated.
    """
    if files.dockerfiles["api"].stages[:-1] != files.dockerfiles["worker"].stages[:-1]:
        yield "Dockerfile.api and Dockerfile.worker differ in more than their last stage"
    own = {name for name, _, _ in files.own_services()}
    for name, service in files.services.items():
        if name not in own and not re.search(r":\d+(\.\d+)+", service["image"]):
            yield f"docker-compose.yml: {name}'s image {service['image']} is not pinned to a version"
    builders: dict[str, str] = {}
    for name, service in files.services.items():
        path = service.get("build", {}).get("dockerfile")
        if path is None:
            continue
        if service["image"] != f"promptwire-{path.partition('.')[2]}:latest":
            yield f"docker-compose.yml: {name}'s image {service['image']} is not the one that {path} builds"
        if (other := builders.setdefault(service["image"], name)) != name:
            yield f"docker-compose.yml: {other} and {name} both build {service['image']}"
    for name, dockerfile in files.dockerfiles.items():
        if not re.fullmatch(r"\d{4,}:\d{4,}", dockerfile.last("USER")):
            yield f"Dockerfile.{name}: USER is not a numeric id of its own, so it may be root"


def _copied(lines: list[str]) -> Iterator[str]:
    """The sources of COPY instructions that copy from the build context."""
    for line in lines:
        if "--from" not in line:
            yield from line.split()[:-1]
