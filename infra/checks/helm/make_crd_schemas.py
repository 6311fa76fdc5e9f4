"""Write crd_schemas.json: JSON schemas of the custom resources in the chart, of KEDA and the Prometheus Operator.

    python -m infra.checks.helm.make_crd_schemas

They come from the pydantic models of cloudcoil, which are generated from the projects' definitions. pip installs them
in a temporary environment.
"""

import json
import subprocess
import sys
import venv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SCHEMAS = Path(__file__).with_name("crd_schemas.json")

PACKAGES = ("cloudcoil-models-keda==2.16.1.0", "cloudcoil-models-prometheus-operator==0.80.1.0")
#: Custom resources: the module and the class.
MODELS = {
    "keda.sh/v1alpha1 ScaledObject": "cloudcoil.models.keda.v1alpha1:ScaledObject",
    "keda.sh/v1alpha1 TriggerAuthentication": "cloudcoil.models.keda.v1alpha1:TriggerAuthentication",
    "monitoring.coreos.com/v1 PodMonitor": "cloudcoil.models.prometheus_operator.v1:PodMonitor",
}
_LICENSE = (
    "From KEDA and the Prometheus Operator, by way of cloudcoil: Apache-2.0, http://www.apache.org/licenses/LICENSE-2.0"
)
_PRINT_SCHEMA = """
import importlib, json, sys
module, name = sys.argv[1].split(":")
print(json.dumps(getattr(importlib.import_module(module), name).model_json_schema(by_alias=True)))
"""


def main() -> int:
    with TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = f"{folder}/bin/python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        printed = {
            name: subprocess.check_output([python, "-c", _PRINT_SCHEMA, model]) for name, model in MODELS.items()
        }
    schemas = {name: _close(json.loads(text)) for name, text in printed.items()}
    contents = {"comment": _LICENSE, "sources": PACKAGES, "schemas": schemas}
    SCHEMAS.write_text(json.dumps(contents, separators=(",", ":"), sort_keys=True) + "\n")
    return 0


def _close(schema: Any) -> Any:
    """Refuse unknown fields and nulls, and drop what validates nothing. What Kubernetes itself writes is left out."""
    if isinstance(schema, list):
        return [_close(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        return _close(options[0])
    if options:
        return {"anyOf": _close(options)}
    closed = {key: _close(part) for key, part in schema.items() if key not in ("title", "default", "description")}
    if isinstance(closed.get("properties"), dict):
        closed["properties"] = {name: _close(part) for name, part in schema["properties"].items() if name != "status"}
        closed["additionalProperties"] = False
    return closed


if __name__ == "__main__":
    sys.exit(main())
