"""No file contains a secret."""

import re
from collections.abc import Iterator

from infra.checks.deployment_files import DeploymentFiles

SECRET_NAME = re.compile(r"SECRET|PASSWORD|_KEY$|AUTH$|TOKEN", re.IGNORECASE)
_REFERENCE = re.compile(r"\$\{(?:[^{}]|\{[^{}]*\})*\}")
_SECRET_VALUE = re.compile(
    r"AKIA[0-9A-Z]{16}|gh[pousr]_\w{36}|sk-\w{20}|-----BEGIN [A-Z ]*PRIVATE KEY|://[^\s/:@$]*:[^\s/@${}]+@"
)


def secrets(files: DeploymentFiles) -> Iterator[str]:
    for name, service in files.unresolved_compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            literal = _REFERENCE.sub("", str(value))
            if SECRET_NAME.search(variable) and ("${" not in str(value) or re.search(r"[^:]$", literal)):
                yield f"docker-compose.yml: {name}'s {variable} is written out; it belongs in .env"
    for dockerfile in ("Dockerfile.api", "Dockerfile.worker"):
        for variable in re.findall(r"(?:^(?:ARG|ENV) |\s)(\w+)=", files.text(dockerfile), re.MULTILINE):
            if SECRET_NAME.search(variable):
                yield f"{dockerfile} sets {variable}, which would stay in the image"
    workflows = sorted(str(path.relative_to(files.root)) for path in files.root.glob(".github/workflows/*.yml"))
    for path in ("Dockerfile.api", "Dockerfile.worker", "docker-compose.yml", *workflows):
        for found in _SECRET_VALUE.finditer(files.text(path)):
            yield f"{path} contains what looks like a secret: {found[0][:8]}…"
