"""The Terraform in infra/aws follows every rule, and each rule reports configurations that break it.

`terraform validate` looks for names that do not exist: see test_terraform_validate.py.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.infra import terraform_rules as rules
from tests.infra.hcl import Configuration
from tests.support.servers import ROOT

Rule = Callable[[Configuration], Iterator[str]]


@pytest.fixture(scope="module")
def configuration() -> Configuration:
    return Configuration(ROOT / "infra/aws")


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_configuration_follows_the_rule(rule: Rule, configuration: Configuration) -> None:
    assert list(rule(configuration)) == []


def test_the_rules_see_all_resources(configuration: Configuration) -> None:
    """As many as the files have lines that start one."""
    lines = [line for file in (ROOT / "infra/aws").glob("*.tf") for line in file.read_text().splitlines()]
    started = sum(line.startswith("resource ") for line in lines)
    assert len(configuration.find("resource")) == started > 80


BREAKS: list[tuple[Rule, str, str, str, str]] = [
    (rules.declarations_are_used, "waf.tf", "var.requests_per_address", "2000", "var.requests_per_address is not used"),
    (
        rules.declarations_are_used,
        "main.tf",
        "api_port      = 8000",
        "api_port      = 8000\n  web_port = 80",
        "local.web_port",
    ),
    (rules.metrics_exist, "alarms.tf", "promptwire_oldest_queued_seconds", "promptwire_oldest", "promptwire_oldest"),
    (
        rules.metrics_exist,
        "autoscaling.tf",
        "promptwire_queue_depth",
        "promptwire_queue_dpth",
        "promptwire_queue_dpth",
    ),
    (
        rules.metrics_exist,
        "tasks.tf",
        '"infra.monitoring.cloudwatch"',
        '"api.cloudwach"',
        "the sidecar runs another program",
    ),
    (rules.secrets_come_from_secrets_manager, "tasks.tf", '["METRICS_TOKEN"]', "[]", "api has no METRICS_TOKEN"),
    (
        rules.secrets_come_from_secrets_manager,
        "secrets.tf",
        ', "METRICS_TOKEN"])',
        "])",
        "generated_names and generated differ",
    ),
    (
        rules.secrets_come_from_secrets_manager,
        "variables.tf",
        '"JWT_SECRET_KEY", "METRICS_TOKEN",',
        '"JWT_SECRET_KEY",',
        "var.settings accepts METRICS_TOKEN",
    ),
    (rules.variables_are_described, "variables.tf", "type        = set(number)\n", "", "var.egress_ports has no type"),
    (rules.variables_are_described, "outputs.tf", 'description = "The URL of the API."\n', "", "output.url"),
    (
        rules.only_the_load_balancer_is_public,
        "security_groups.tf",
        "cidr_ipv4         = each.key",
        'cidr_ipv4 = "0.0.0.0/0"',
        "flower",
    ),
    (
        rules.only_the_load_balancer_is_public,
        "security_groups.tf",
        "cidr_ipv4         = var.vpc_cidr",
        'cidr_ipv6 = "::/0"',
        "endpoints is open to the internet",
    ),
    (
        rules.only_the_load_balancer_is_public,
        "security_groups.tf",
        'description = "PostgreSQL."',
        'ingress {\n cidr_blocks = ["0.0.0.0/0"]\n }',
        "aws_security_group.database",
    ),
    (
        rules.stored_data_is_protected,
        "database.tf",
        "storage_encrypted     = true",
        "",
        "storage_encrypted is not set",
    ),
    (rules.stored_data_is_protected, "database.tf", 'value = "1"', 'value = "0"', "rds.force_ssl is 0"),
    (
        rules.stored_data_is_protected,
        "cache.tf",
        '"required"',
        '"preferred"',
        "transit_encryption_mode is preferred",
    ),
    (rules.stored_data_is_protected, "cache.tf", '"noeviction"', '"allkeys-lru"', "allkeys-lru"),
    (
        rules.stored_data_is_protected,
        "logs.tf",
        "kms_key_id        = aws_kms_key.logs.arn",
        "",
        "kms_key_id is not set",
    ),
    (rules.stored_data_is_protected, "registry.tf", "scan_on_push = true", "scan_on_push = false", "is not scanned"),
    (rules.stored_data_is_protected, "keys.tf", "enable_key_rotation     = true", "", "enable_key_rotation"),
    (rules.only_https_is_served, "load_balancer.tf", "TLS13-1-2-2021-06", "2016-08", "old TLS"),
    (rules.only_https_is_served, "load_balancer.tf", 'type = "redirect"', 'type = "forward"', "serves HTTP"),
    (rules.only_https_is_served, "load_balancer.tf", '"/metrics", ', "", "/metrics"),
    (
        rules.secrets_come_from_secrets_manager,
        "database.tf",
        "ephemeral.random_password.database.result",
        '"correct-horse-battery"',
        "password_wo is not one of the generated secrets",
    ),
    (
        rules.secrets_come_from_secrets_manager,
        "tasks.tf",
        'APP_ENV         = "prod"',
        'APP_ENV = "prod"\n    JWT_SECRET_KEY = "k"',
        "JWT_SECRET_KEY is in the environment",
    ),
    (
        rules.secrets_come_from_secrets_manager,
        "tasks.tf",
        'LOG_FORMAT      = "json"',
        "LOG_FORMAT = random_password.cache.result",
        "LOG_FORMAT puts a secret",
    ),
    (rules.secrets_come_from_secrets_manager, "tasks.tf", ', "FLOWER_PASSWORD"]', "]", "flower has no password"),
    (
        rules.secrets_come_from_secrets_manager,
        "secrets.tf",
        "secret_string_wo  ",
        "secret_string  ",
        "stored in the state",
    ),
    (
        rules.outputs_hide_secrets,
        "outputs.tf",
        "aws_db_instance.this.endpoint",
        "local.redis_url",
        "database_endpoint",
    ),
    (rules.settings_exist, "tasks.tf", "TRUSTED_PROXIES", "TRUSTED_PROXY", "TRUSTED_PROXY is not a setting"),
    (rules.settings_exist, "tasks.tf", "https://", "http://", "PUBLIC_URL is"),
    (rules.settings_exist, "tasks.tf", '"prod"', '"dev"', "APP_ENV is"),
    (rules.ports_agree, "main.tf", "8000", "8080", "local.api_port is 8080"),
    (rules.ports_agree, "main.tf", "5555", "5556", "local.flower_port is 5556"),
    (rules.containers_agree, "tasks.tf", '"api.wsgi:app"', '"api.app:app"', "api: command is"),
    (rules.containers_agree, "tasks.tf", '"-m", "worker.healthcheck"', '"-m", "worker.live"', "worker: health is"),
    (rules.containers_agree, "tasks.tf", '"alembic", ', '"python", "-m", "alembic", ', "migrate: command is"),
    (rules.timeouts_are_in_order, "load_balancer.tf", "idle_timeout = 70", "idle_timeout = 60", "idle_timeout is 60"),
    (rules.timeouts_are_in_order, "load_balancer.tf", "idle_timeout = 70", "idle_timeout = 120", "idle_timeout is 120"),
    (rules.timeouts_are_in_order, "tasks.tf", "api = 20", "api = 5", "local.stop.api is 5"),
    (rules.roles_have_few_permissions, "github.tf", '["ecs:RunTask"]', '["ecs:*"]', "allows ecs:*"),
    (
        rules.roles_have_few_permissions,
        "iam.tf",
        "[for name in each.value.secrets : local.secret_arns[name]]",
        '["*"]',
        "on everything",
    ),
    (rules.roles_have_few_permissions, "github.tf", "refs/heads/main", "*", "other branches"),
]


@pytest.mark.parametrize(
    ("rule", "file", "original", "replacement", "says"),
    BREAKS,
    ids=lambda part: part.__name__ if callable(part) else None,
)
def test_the_rule_reports_a_broken_configuration(
    rule: Rule, file: str, original: str, replacement: str, says: str, tmp_path: Path
) -> None:
    for source in (ROOT / "infra/aws").glob("*.tf"):
        shutil.copy(source, tmp_path)
    text = (tmp_path / file).read_text()
    assert original in text
    (tmp_path / file).write_text(text.replace(original, replacement, 1))
    assert any(says in problem for problem in rule(Configuration(tmp_path)))
