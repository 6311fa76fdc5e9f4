"""`terraform validate` accepts infra/aws, and refuses what the providers do not have."""

import json
import shutil
from pathlib import Path

import pytest

from infra.checks.__main__ import list_checks
from infra.checks.terraform.make_schema import SCHEMA, find_used
from infra.checks.tools import ToolMissingError, run_tool
from tests.support.servers import ROOT

# The file, a part of it, what replaces that part, and what Terraform says.
MUTATIONS = [
    # attributes
    ("cache.tf", "num_cache_clusters  ", "num_cache_cluster  ", 'named "num_cache_cluster" is not expected'),
    ("waf.tf", "aggregate_key_type", "aggregate_key", 'named "aggregate_key" is not expected'),
    ("keys.tf", "enable_key_rotation  ", "key_rotation  ", 'named "key_rotation" is not expected'),
    ("main.tf", "    tags = {", "    tag = {", 'named "tag" is not expected'),
    # types
    ("database.tf", "port                = local", "port = [] # local", "number required"),
    ("autoscaling.tf", "return_data = true", 'return_data = "perhaps"', "a bool is required"),
    ("waf.tf", "limit              = var.requests_per_address", "limit = {}", "number required"),
    ("network.tf", 'domain   = "vpc"', "domain = [1]", "string required"),
    # required attributes
    ("alarms.tf", 'protocol  = "email"', "", 'argument "protocol" is required'),
    ("secrets.tf", "  length  = 64\n", "", 'argument "length" is required'),
    ("database.tf", '  family      = "postgres${var.postgres_version}"\n', "", 'argument "family" is required'),
    # blocks
    ("load_balancer.tf", "  health_check {", "  healthcheck {", 'type "healthcheck" are not expected'),
    ("waf.tf", "managed_rule_group_statement {", "rule_group {", 'type "rule_group" are not expected'),
    ("waf.tf", "  default_action {\n    allow {}\n  }\n", "", 'At least 1 "default_action" blocks are required'),
    ("tasks.tf", "  runtime_platform {", "  runtime_platform {}\n  runtime_platform {", "No more than 1"),
    ("iam.tf", "    principals {", "    principal {", 'type "principal" are not expected'),
    # references
    ("alarms.tf", "aws_lb.this.arn_suffix", "aws_lb.this.suffix", 'exported attribute named "suffix"'),
    ("outputs.tf", "aws_db_instance.this.endpoint", "aws_db_instance.that.endpoint", '"aws_db_instance" "that"'),
    ("dashboard.tf", "var.region", "var.regions", 'name "regions" has not been declared'),
    ("secrets.tf", "ephemeral.random_password.jwt.result", "ephemeral.random_password.jwt.key", 'named "key"'),
    # types of resources
    ("registry.tf", '"aws_ecr_lifecycle_policy"', '"aws_ecr_lifecycle"', 'resource type "aws_ecr_lifecycle"'),
    ("github.tf", 'data "aws_iam_policy_document"', 'data "aws_iam_policy"', 'data source "aws_iam_policy"'),
]


def validate(*folders: Path) -> list[str]:
    """Return the problems in the folders, a line for each. Skip the test if Terraform is not installed."""
    command = next(check.command for check in list_checks() if check.name == "Terraform: validate")
    try:
        result = run_tool([*command[:-1], *map(str, folders)], ROOT)
    except ToolMissingError as error:
        pytest.skip(f"{error}: `make check-infra` installs it")
    assert result.stderr == ""
    return result.stdout.splitlines()


def test_the_configuration_is_valid() -> None:
    assert validate(ROOT / "infra/aws") == []


def test_each_mutation_is_refused(tmp_path: Path) -> None:
    """One test, because starting Terraform and its providers takes longer than validating."""
    for number, (file, original, replacement, _) in enumerate(MUTATIONS):
        folder = shutil.copytree(ROOT / "infra/aws", tmp_path / str(number))
        text = (folder / file).read_text()
        assert original in text
        (folder / file).write_text(text.replace(original, replacement, 1))
    lines = validate(*tmp_path.iterdir())
    for number, (file, *_, says) in enumerate(MUTATIONS):
        found = [line for line in lines if line.startswith(f"{tmp_path / str(number) / file}:")]
        assert any(says in line for line in found), (MUTATIONS[number], found)


def test_the_schema_has_what_the_configuration_uses_and_no_more() -> None:
    kinds = {"resource_schemas": "resource", "data_source_schemas": "data", "ephemeral_resource_schemas": "ephemeral"}
    providers = json.loads(SCHEMA.read_text())["provider_schemas"].values()
    known = {(kind, name) for schema in providers for key, kind in kinds.items() for name in schema.get(key, {})}
    assert known == set(find_used(ROOT / "infra/aws")), "run python -m infra.checks.terraform.make_schema"
