"""Check a Helm chart with each of its ci/*-values.yaml. Runs in `.venv-infra`, where Helm is a library.

    chart.py CHART             lint, render, and compare with the schemas of Kubernetes and of the custom resources
    chart.py CHART --checkov   render, and run checkov
    chart.py CHART --json      print the rendered objects, by the name of the values

Prints a line for each problem, and exits with 1 if there is one.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import helm_python
import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator

#: The oldest Kubernetes that the chart accepts (Chart.yaml), and the newest with schemas here.
KUBERNETES_VERSIONS = ("1.30", kubernetes_validate.latest_version())

# Of checkov's findings, these are meant:
SKIPPED = (
    "CKV_K8S_9",  # readiness probes: workers and Flower serve no Service
    "CKV_K8S_11",  # CPU limits: they slow a process down while cores are idle
    "CKV_K8S_15",  # pull policy Always: tags are never moved
    "CKV_K8S_35",  # secrets in files: the application reads the environment
    "CKV_K8S_43",  # digests: the operator pushes the images, and chooses their tags
)

Manifest = dict[str, Any]


def render(chart: Path, values: Path) -> list[Manifest]:
    """Return the objects that Helm creates. Raises HelmError with what is wrong."""
    given = yaml.safe_load(values.read_text())
    with helm_python.Chart.load(chart) as loaded:
        loaded.validate_schema(given)
        files = loaded.render(given, name="promptwire", namespace="queue")
    texts = [text for name, text in sorted(files.items()) if not name.endswith("NOTES.txt")]
    return [manifest for text in texts for manifest in yaml.safe_load_all(text) if manifest]


def lint(chart: Path, values: Path) -> Iterator[str]:
    """`helm lint --strict`; remarks, such as that there is no icon, are no problems."""
    report = helm_python.lint(chart, yaml.safe_load(values.read_text()), strict=True)
    yield from report["errors"]
    yield from (f"{each['path']}: {each['error']}" for each in report["messages"] if each["severity"] > 1)


def validate(manifest: Manifest) -> Iterator[str]:
    """Compare an object with the schema of its kind."""
    kind = f"{manifest['apiVersion']} {manifest['kind']}"
    if kind in _custom_resources():
        for error in Draft202012Validator(_custom_resources()[kind]).iter_errors(manifest):
            yield f"{kind}: {error.json_path}: {error.message}"
        return
    for version in KUBERNETES_VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{kind}, Kubernetes {version}: {error.json_path}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError as error:
            yield error.message


@cache
def _custom_resources() -> dict[str, Any]:
    schemas: dict[str, Any] = json.loads(Path(__file__).with_name("crd_schemas.json").read_text())["schemas"]
    return schemas


def checkov(objects: dict[str, list[Manifest]]) -> Iterator[str]:
    program = Path(sys.executable).with_name("checkov")
    options = ["--skip-download", "--quiet", "--compact", "--framework=kubernetes", f"--skip-check={','.join(SKIPPED)}"]
    with TemporaryDirectory() as folder:
        for name, manifests in objects.items():
            (Path(folder) / f"{name}.yaml").write_text(yaml.safe_dump_all(manifests))
        result = subprocess.run([program, *options, "-d", folder], capture_output=True, text=True, check=False)
    if result.returncode:
        yield result.stdout + result.stderr


def main(chart: Path, option: str = "") -> int:
    problems: list[str] = []
    objects: dict[str, list[Manifest]] = {}
    for values in sorted(chart.glob("ci/*-values.yaml")):
        name = values.name.removesuffix("-values.yaml")
        try:
            objects[name] = render(chart, values)
            problems += [] if option else lint(chart, values)
        except (helm_python.HelmError, yaml.YAMLError) as error:
            problems.append(f"{name}: {error}")
    if option == "--checkov":
        problems += checkov(objects)
    elif not option:
        problems += [
            f"{name}: {problem}"
            for name, found in objects.items()
            for manifest in found
            for problem in validate(manifest)
        ]
    if option == "--json" and not problems:
        print(json.dumps(objects))
    elif problems:
        print(*problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
