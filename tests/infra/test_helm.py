"""The Helm chart renders, fits Kubernetes' schemas and follows the rules; broken charts and values are reported."""

import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.checks.__main__ import list_checks
from infra.checks.deployment_files import DeploymentFiles
from infra.checks.helm import rules
from infra.checks.helm.objects import CHART, ChartError, Manifest, Objects, render
from infra.checks.tools import ToolMissingError, run_tool
from tests.support.servers import ROOT

API, WORKER, MIGRATE = "Deployment promptwire-api", "Deployment promptwire-worker", "Job promptwire-migrate"
FLOWER, SCALED = "Deployment promptwire-flower", "ScaledObject promptwire-worker"

# The rule, the object, a pattern in its YAML, what replaces it, and what the rule says.
BREAKS = [
    (rules.hardening, WORKER, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "worker: readOnlyRoot"),
    (rules.hardening, MIGRATE, "- ALL", "- NET_RAW", "migrate: capabilities"),
    (rules.hardening, API, "runAsUser: 10001", "runAsUser: 0", "api: runAsUser"),
    (rules.hardening, FLOWER, "enableServiceLinks: false", "enableServiceLinks: true", "flower: enableServiceLinks"),
    (rules.hardening, API, "limits:\n *memory: 2Gi", "limits: {}", "api: limits"),
    (rules.hardening, WORKER, "sizeLimit: 64Mi", "medium: Memory", "worker: volumes"),
    (rules.hardening, API, "automountServiceAccountToken: false", "hostNetwork: false", "api: automount"),
    (rules.images, API, "promptwire-api:3f2c9ab", "promptwire-worker:3f2c9ab", "api: the image is"),
    (rules.images, WORKER, ":3f2c9ab\n", ":latest\n", "worker: the image is"),
    (rules.images, MIGRATE, "- upgrade", "- downgrade", "migrate: the command is"),
    (rules.images, API, "image:", "command: [sh]\n        image:", "api: the command is"),
    (rules.probes, WORKER, "worker.healthcheck", "worker.health", "worker: the liveness probe runs"),
    (rules.probes, API, "path: /readyz/", "path: /ready/", "api: the readiness probe asks /ready/"),
    (rules.probes, API, "path: /livez/", "path: /readyz/", "api: the liveness probe asks /readyz/"),
    (rules.probes, FLOWER, "startupProbe", "readinessProbe", "flower: the probes are"),
    (rules.probes, FLOWER, "port: flower", "port: web", "asks port web, which it does not have"),
    (rules.secrets, API, "key: JWT_SECRET_KEY", "key: METRICS_TOKEN", "api: JWT_SECRET_KEY comes from"),
    (rules.secrets, WORKER, "- name: APP_ENV", "- name: OPENAI_API_KEY", "worker: OPENAI_API_KEY is written out"),
    (rules.secrets, API, "name: METRICS_TOKEN", "name: METRICS_TOKENS", "api: the secrets are"),
    (rules.settings, API, "name: TRUSTED_PROXIES", "name: TRUSTED_PROXY", "sets TRUSTED_PROXY, which nothing reads"),
    (rules.settings, WORKER, "value: prod", "value: dev", "worker: APP_ENV is dev"),
    (rules.ports, API, "value: '8000'", "value: '8080'", "the API's port differs"),
    (rules.ports, WORKER, "containerPort: 8001", "containerPort: 9001", "the worker's port differs"),
    (rules.ports, FLOWER, "value: '5555'", "value: '5556'", "Flower's port differs"),
    (rules.selectors, "Service promptwire-api", "component: api", "component: web", "Service promptwire-api selects"),
    (rules.selectors, "Service promptwire-api", "targetPort: http", "targetPort: web", "names the port web"),
    (rules.selectors, "PodDisruptionBudget promptwire-worker", "component: worker", "component: web", "selects []"),
    (rules.selectors, "PodMonitor promptwire-worker", "port: metrics", "port: http", "names the port http"),
    (rules.stop_times, API, "terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds: 15", "API is killed"),
    (rules.stop_times, WORKER, "terminationGracePeriodSeconds: 120", "terminationGracePeriodSeconds: 100", "killed"),
    (rules.stop_times, WORKER, "value: SIGQUIT", "value: SIGTERM", "REMAP_SIGTERM differs"),
    (rules.migration, MIGRATE, "pre-install,pre-upgrade", "post-install,post-upgrade", "the hooks are"),
    (rules.migration, MIGRATE, "restartPolicy: Never", "serviceAccountName: promptwire", "does not exist yet"),
    (rules.network, "NetworkPolicy promptwire-worker", "- Egress", "- Ingress", "worker has no network policy"),
    (rules.network, "NetworkPolicy promptwire-api", "from:", "origin:", "api can be reached by everything"),
    (rules.network, "NetworkPolicy promptwire-migrate", "egress:", "egress:\n  - to: []", "migrate reaches all ports"),
    (rules.scaling, SCALED, "turn IS NOT NULL", "turn IS NULL", "does not count what workers claim"),
    (rules.scaling, SCALED, "listName: prompts.default", "listName: prompts", "the lists are ['prompts', "),
    (rules.models, API, "mountPath: /etc/promptwire", "mountPath: /etc/models", "api: MODELS_FILE is /etc/promptwire/"),
    (rules.models, WORKER, "name: MODELS_FILE", "name: WORKER_MODELS", "worker: MODELS_FILE is"),
    (rules.secrets, WORKER, "name: LARGE_API_KEY", "name: SMALL_API_KEY", "worker: the secrets are"),
    (rules.monitoring, "PodMonitor promptwire-api", "replacement: promptwire-api", "replacement: api", "the job is"),
    (rules.monitoring, "PodMonitor promptwire-worker", "key: METRICS_TOKEN", "key: TOKEN", "not use METRICS_TOKEN"),
    (rules.scaling, WORKER, "^spec:", "spec:\n  replicas: 2", "set twice or never"),
]  # fmt: skip


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Manifest]]:
    try:
        return render(ROOT)
    except ToolMissingError as error:
        pytest.skip(f"{error}: `make check-infra` installs it")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / CHART, tmp_path / CHART)
    return tmp_path


def named(manifests: list[Manifest]) -> dict[str, Manifest]:
    return {f"{manifest['kind']} {manifest['metadata']['name']}": manifest for manifest in manifests}


def environment(manifest: Manifest) -> dict[str, str]:
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each.get("value", "from the secret") for each in container["env"]}


def test_the_chart_follows_the_rules() -> None:
    try:
        assert rules.find_problems(ROOT) == []
    except ToolMissingError as error:
        pytest.skip(f"{error}: `make check-infra` installs it")


@pytest.mark.parametrize(
    ("rule", "name", "pattern", "replacement", "says"), BREAKS, ids=lambda part: getattr(part, "__name__", part)
)
def test_a_broken_object_is_reported(
    rule: Any, name: str, pattern: str, replacement: str, says: str, rendered: dict[str, list[Manifest]]
) -> None:
    objects = named(rendered["everything"])
    text, times = re.subn(pattern, replacement, yaml.safe_dump(objects[name]), flags=re.MULTILINE)
    assert times, f"{pattern} is not in {name}"
    objects[name] = yaml.safe_load(text)
    problems = list(rule(Objects(list(objects.values()), DeploymentFiles(ROOT))))
    assert any(says in problem for problem in problems), problems


def test_every_rule_has_a_broken_object() -> None:
    assert {rule for rule, *_ in BREAKS} | {rules.versions} == set(rules.RULES)


def test_another_version_than_the_projects_is_reported(copy: Path) -> None:
    (copy / "pyproject.toml").write_text('[project]\nversion = "9.0.0"\n')
    assert "9.0.0 in pyproject.toml" in next(rules.versions(Objects([], DeploymentFiles(copy))))


def test_names_of_settings_in_the_values_schema_are_compared(copy: Path, rendered: dict[str, list[Manifest]]) -> None:
    path = copy / CHART / "values.schema.json"
    path.write_text(path.read_text().replace('"SEMANTIC_CACHE"', '"SEMANTIC_CASH"'))
    problems = list(rules.settings(Objects(rendered["minimal"], DeploymentFiles(copy))))
    assert problems == [
        "values.schema.json accepts SEMANTIC_CASH, which is not a setting",
        "values.schema.json does not accept SEMANTIC_CACHE",
    ]


def test_a_secret_in_the_chart_is_reported(rendered: dict[str, list[Manifest]]) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "promptwire"}, "stringData": {"a": "b"}}
    problems = rules.secrets(Objects([*rendered["minimal"], secret], DeploymentFiles(ROOT)))
    assert list(problems) == ["the chart contains the secret promptwire"]


def test_optional_parts_are_off_by_default(rendered: dict[str, list[Manifest]]) -> None:
    minimal = named(rendered["minimal"])
    assert {name.partition(" ")[0] for name in minimal} == {
        "Deployment", "Job", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount",
    }  # fmt: skip
    assert FLOWER not in minimal
    assert minimal[WORKER]["spec"]["replicas"] == 2


def test_settings_arrive_as_they_are_written(rendered: dict[str, list[Manifest]]) -> None:
    """Helm reads numbers as floats, so that 1048576 would become 1.048576e+06."""
    given = environment(named(rendered["everything"])[WORKER])
    assert (given["MAX_BODY_BYTES"], given["SEMANTIC_CACHE_DISTANCE"]) == ("1048576", "0.002")
    assert (given["SEMANTIC_CACHE"], given["OPENAI_MODEL"]) == ("true", "gpt-5-mini")


def test_models_arrive_as_they_are_written(rendered: dict[str, list[Manifest]]) -> None:
    file = named(rendered["everything"])["ConfigMap promptwire-models"]["data"]["models.toml"]
    assert tomllib.loads(file)["models"] == {
        "default": {"generator": "openai", "model": "gpt-5-mini", "input_price": 0.25, "context_tokens": 1048576},
        "org/large-2.0": {
            "generator": "openai", "base_url": "https://llm.example.com/v1", "model": "large",
            "api_key_env": "LARGE_API_KEY",
        },
    }  # fmt: skip


def test_the_api_reaches_the_provider_only_if_it_embeds_there(rendered: dict[str, list[Manifest]]) -> None:
    ports = {
        name: [rule["ports"][0]["port"] for rule in named(objects)["NetworkPolicy promptwire-api"]["spec"]["egress"]]
        for name, objects in rendered.items()
    }
    assert ports == {"minimal": [53, 5432, 6379], "everything": [53, 5432, 6379, 443, 4318]}


def test_workers_reach_webhooks_wherever_the_model_is(copy: Path, rendered: dict[str, list[Manifest]]) -> None:
    model = {"port": 8000, "to": [{"podSelector": {}}]}
    given = {"images": {"registry": "r", "tag": "1"}, "existingSecret": "s", "networkPolicy": {"provider": model}}
    (copy / CHART / "ci/model-values.yaml").write_text(json.dumps(given))
    policy = named(render(copy)["model"])["NetworkPolicy promptwire-worker"]["spec"]
    ((webhooks,),) = [rule["to"] for rule in policy["egress"] if rule["ports"] == [{"protocol": "TCP", "port": 443}]]
    assert webhooks["ipBlock"]["cidr"] == "0.0.0.0/0"
    assert "169.254.0.0/16" in webhooks["ipBlock"]["except"]


def test_nobody_reaches_the_api_if_no_callers_are_given(copy: Path, rendered: dict[str, list[Manifest]]) -> None:
    """To Kubernetes, a rule that names no source allows all."""
    given = {"images": {"registry": "r", "tag": "1"}, "existingSecret": "s", "networkPolicy": {"ingress": []}}
    (copy / CHART / "ci/closed-values.yaml").write_text(json.dumps(given))
    policy = named(render(copy)["closed"])["NetworkPolicy promptwire-api"]["spec"]
    assert "Ingress" in policy["policyTypes"]
    assert "ingress" not in policy


def test_wrong_values_are_refused(copy: Path, rendered: dict[str, list[Manifest]]) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "registry": {"images": {"registry": "", "tag": "1"}},
        "tag": {"images": {"registry": "r", "tag": "latest"}},
        "images": {"images": {"registry": "r", "tag": "3" * 64}},  # no label
        "existingSecret": {"existingSecret": ""},
        "GENERATR": {"settings": {"GENERATR": "openai"}},
        "JWT_SECRET_KEY": {"settings": {"JWT_SECRET_KEY": "k"}},
        "host": {"ingress": {"enabled": True}},
        "replica": {"worker": {"replica": 3}},
        "modle": {"models": {"a": {"modle": "m"}}},
        "replicas": {"api": {"replicas": "two"}},
    }
    for name, values in wrong.items():
        given = {"images": {"registry": "r", "tag": "1"}, "existingSecret": "s"} | values
        (copy / CHART / f"ci/wrong-{name}-values.yaml").write_text(json.dumps(given))
    with pytest.raises(ChartError) as raised:
        render(copy)
    refused = dict(re.findall(r"^wrong-(\w+): ((?:(?!wrong-).*\n?)+)", str(raised.value), re.MULTILINE))
    assert refused.keys() == wrong.keys()
    for name, message in refused.items():
        assert re.search(rf"\b{name}\b", message), message


@pytest.mark.parametrize(
    ("file", "original", "replacement", "says"),
    [
        ("worker.yaml", "failureThreshold: 3", "failureTreshold: 3", "failureTreshold"),
        ("api.yaml", "maxUnavailable: 0, ", "maxUnavailable: [0], ", "maxUnavailable"),
        ("autoscaling.yaml", "maxReplicaCount", "maxReplicas", "maxReplicas"),
        ("monitoring.yaml", "podMetricsEndpoints", "endpoints", "'endpoints' was unexpected"),
        ("flower.yaml", "{{- end }}", "", "unexpected EOF"),
        ("migrate.yaml", '"promptwire.container"', '"promptwire.box"', 'no template "promptwire.box"'),
    ],
)
def test_a_broken_template_is_reported(file: str, original: str, replacement: str, says: str, copy: Path) -> None:
    path = copy / CHART / "templates" / file
    assert original in path.read_text()
    path.write_text(path.read_text().replace(original, replacement))
    check = next(check for check in list_checks() if check.name == "Helm: chart and Kubernetes' schemas")
    try:
        result = run_tool([*check.command[:-1], str(copy / CHART)], ROOT)
    except ToolMissingError as error:
        pytest.skip(f"{error}: `make check-infra` installs it")
    assert result.returncode == 1
    assert says in result.stdout, result.stderr
