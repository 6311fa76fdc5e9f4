"""Rules for the chart's objects: each takes them and yields a sentence for each problem."""

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr

from infra.checks.deployment_files import DeploymentFiles
from infra.checks.helm.objects import CHART, ChartError, Container, Objects, render
from infra.checks.rules.names import KNOWN_VARIABLES
from infra.checks.rules.secrets import SECRET_NAME
from infra.checks.rules.text import differences, search
from infra.checks.tools import TOOLS
from shared.db.models import CLAIMABLE, DEFAULT_ROUTE
from shared.messaging.queue import queue_name
from shared.settings import Settings
from shared.settings.model_routes import ModelRoute

_SECRET_SETTINGS = {name.upper() for name, field in Settings.model_fields.items() if field.annotation is SecretStr}
_FLOWERS_SECRETS = {"FLOWER_PASSWORD", "REDIS_URL", "REDIS_PASSWORD"}
#: What signs people in is the API alone.
_SECRETS_OF_API = {"OIDC_CLIENT_SECRET"}
_MODELS_FILE = "models.toml"
#: The Dockerfile of each container's image.
_IMAGES = {"api": "api", "worker": "worker", "migrate": "api", "flower": "worker"}


def hardening(objects: Objects) -> Iterator[str]:
    """Every container has limits and no more rights than it needs, as in Compose."""
    for name, container in objects.containers.items():
        pod, body = container.pod, container.body
        user = objects.files.dockerfiles[_IMAGES[name]].last("USER").partition(":")[0]
        rights, identity = body.get("securityContext", {}), pod.get("securityContext", {})
        resources = body.get("resources", {})
        required = {
            "readOnlyRootFilesystem": rights.get("readOnlyRootFilesystem") is True,
            "allowPrivilegeEscalation": rights.get("allowPrivilegeEscalation") is False,
            "capabilities": rights.get("capabilities") == {"drop": ["ALL"]},
            "runAsNonRoot": identity.get("runAsNonRoot") is True,
            "runAsUser": str(identity.get("runAsUser")) == user,
            "seccompProfile": identity.get("seccompProfile") == {"type": "RuntimeDefault"},
            "automountServiceAccountToken": pod.get("automountServiceAccountToken") is False,
            "enableServiceLinks": pod.get("enableServiceLinks") is False,
            "requests": {"cpu", "memory"} <= resources.get("requests", {}).keys(),
            "limits": "memory" in resources.get("limits", {}),
            "volumes": all(map(_is_bounded, pod.get("volumes", []))),
            "/tmp": {"/tmp", "/dev/shm"} <= {mount["mountPath"] for mount in body["volumeMounts"]},  # noqa: S108  # nosec B108
        }
        yield from (f"{name}: {what} is not as it should be" for what, is_right in required.items() if not is_right)


def _is_bounded(volume: dict[str, Any]) -> bool:
    """Whether a volume cannot fill the node's disk or memory."""
    return "configMap" in volume or "sizeLimit" in volume.get("emptyDir", {})


def images(objects: Objects) -> Iterator[str]:
    """Images are ours, with a tag that is not moved. Commands are those of the images and of Compose."""
    services = objects.files.unresolved_compose["services"]
    for name, container in objects.containers.items():
        if not re.search(rf"/promptwire-{_IMAGES[name]}:(?!latest$)\S+$", container.body["image"]):
            yield f"{name}: the image is {container.body['image']}"
        command = container.body.get("command")
        if "args" in container.body or command != services[name].get("command"):
            yield f"{name}: the command is {command}, and in docker-compose.yml {services[name].get('command')}"


def probes(objects: Objects) -> Iterator[str]:
    """What runs for ever is probed, as the images' HEALTHCHECK does it. Only the API has to become ready."""
    for name, container in objects.containers.items():
        found = {key.removesuffix("Probe") for key in container.body if key.endswith("Probe")}
        wanted = {"startup", "liveness"} if container.kind == "Deployment" else set()
        if name == "api":
            wanted |= {"readiness"}
        if found != wanted:
            yield f"{name}: the probes are {sorted(found)}"
        for probe in found:
            yield from _probe(objects, container, probe)


def _probe(objects: Objects, container: Container, probe: str) -> Iterator[str]:
    body = container.body[f"{probe}Probe"]
    check = objects.files.dockerfiles[_IMAGES[container.name]].healthcheck
    if "exec" in body and body["exec"]["command"] != check:
        yield f"{container.name}: the {probe} probe runs {body['exec']['command']}, and the image {check}"
    if "httpGet" in body:
        path, port = body["httpGet"]["path"], body["httpGet"]["port"]
        if port not in container.ports:
            yield f"{container.name}: the {probe} probe asks port {port}, which it does not have"
        if container.name == "api" and path != (
            "/readyz/" if probe == "readiness" else search(r":8000(/\w+/)", check[-1])
        ):
            yield f"{container.name}: the {probe} probe asks {path}"


def secrets(objects: Objects) -> Iterator[str]:
    """Secrets come from the operator's secret, and the chart creates none."""
    yield from (f"the chart contains the secret {secret['metadata']['name']}" for secret in objects.all("Secret"))
    for name, container in objects.containers.items():
        for variable in container.values:
            if variable in _SECRET_SETTINGS | _FLOWERS_SECRETS or SECRET_NAME.search(variable):
                yield f"{name}: {variable} is written out"
        for variable, source in container.secrets.items():
            if source.get("secretKeyRef", {}).get("key") != variable:
                yield f"{name}: {variable} comes from {source}"
        keys = {model["api_key_env"] for model in _models(objects).values() if "api_key_env" in model}
        expected = _FLOWERS_SECRETS if name == "flower" else _SECRET_SETTINGS | keys
        if name != "api":
            expected -= _SECRETS_OF_API
        if name != "migrate" and container.secrets.keys() != expected:
            yield f"{name}: the secrets are {sorted(container.secrets)}"


def models(objects: Objects) -> Iterator[str]:
    """What reads the file of the models has it, and the schema of the values knows its keys."""
    for name in ("api", "worker"):
        container = objects.containers[name]
        mounted = {mount["mountPath"] for mount in container.body["volumeMounts"] if mount["name"] == "models"}
        file = Path(container.values.get("MODELS_FILE", ""))
        if bool(_models(objects)) != (str(file.parent) in mounted and file.name == _MODELS_FILE):
            yield f"{name}: MODELS_FILE is {file}, and the mounts are {sorted(mounted)}"
    schema = json.loads(objects.files.text(f"{CHART}/values.schema.json"))
    accepted = schema["properties"]["models"]["additionalProperties"]["properties"]
    for key in sorted(accepted.keys() ^ ModelRoute.model_fields.keys()):
        yield f"values.schema.json and MODELS_FILE do not both have the key {key}"


def _models(objects: Objects) -> dict[str, dict[str, Any]]:
    """The models of the file that the chart makes; none without it."""
    file = next((config["data"][_MODELS_FILE] for config in objects.all("ConfigMap")), "models = {}")
    found: dict[str, dict[str, Any]] = tomllib.loads(file)["models"]
    return found


def settings(objects: Objects) -> Iterator[str]:
    """Variables have readers, and the schema of the values accepts exactly the settings that nothing else sets."""
    for name, container in objects.containers.items():
        yield from (
            f"{name} sets {variable}, which nothing reads" for variable in container.values.keys() - KNOWN_VARIABLES
        )
        if container.values.get("APP_ENV") != "prod":
            yield f"{name}: APP_ENV is {container.values.get('APP_ENV')}"
    schema = json.loads(objects.files.text(f"{CHART}/values.schema.json"))
    accepted = set(schema["properties"]["settings"]["propertyNames"]["enum"])
    yield from (
        f"values.schema.json accepts {name}, which is not a setting" for name in sorted(accepted - KNOWN_VARIABLES)
    )
    given = {name for container in objects.containers.values() for name in (*container.values, *container.secrets)}
    # The chart fixes the first two, where there are Flower and models, and its workers answer all models.
    given |= {"FLOWER_PORT", "MODELS_FILE", "WORKER_MODELS"}
    for name in sorted({name.upper() for name in Settings.model_fields} - accepted - given):
        yield f"values.schema.json does not accept {name}"


def ports(objects: Objects) -> Iterator[str]:
    """A port is the same wherever it is listened on and connected to."""
    api, worker, flower = (objects.containers.get(name) for name in ("api", "worker", "flower"))
    if api:
        exposed = objects.files.dockerfiles["api"].last("EXPOSE")
        found = {
            "PORT": api.values.get("PORT", ""),
            "the port http": str(api.ports.get("http")),
            "Dockerfile.api": exposed,
        }
        yield from differences("the API's port", found)
    if worker:
        port = worker.values.get("WORKER_METRICS_PORT", "")
        yield from differences(
            "the worker's port", {"WORKER_METRICS_PORT": port, "metrics": str(worker.ports.get("metrics"))}
        )
    if flower:
        port = flower.values.get("FLOWER_PORT", "")
        yield from differences("Flower's port", {"FLOWER_PORT": port, "flower": str(flower.ports.get("flower"))})


def selectors(objects: Objects) -> Iterator[str]:
    """What selects pods selects those of one component, and names a port of them."""
    pods = [(each.owner["spec"]["template"]["metadata"]["labels"], each) for each in objects.containers.values()]
    for manifest in objects.all("Service", "NetworkPolicy", "PodMonitor", "PodDisruptionBudget", "Deployment"):
        what, spec = f"{manifest['kind']} {manifest['metadata']['name']}", manifest["spec"]
        selector = spec.get("podSelector", spec.get("selector", {}))
        selector = selector.get("matchLabels", selector)
        selected = [container for labels, container in pods if selector.items() <= labels.items()]
        if len(selected) != 1:
            yield f"{what} selects {[container.name for container in selected]}"
            continue
        for port in _named_ports(spec):
            if port not in selected[0].ports:
                yield f"{what} names the port {port}, which {selected[0].name} does not have"


def _named_ports(spec: dict[str, Any]) -> Iterator[str]:
    yield from (port["targetPort"] for port in spec.get("ports", []))
    yield from (endpoint["port"] for endpoint in spec.get("podMetricsEndpoints", []))
    yield from (port["port"] for rule in spec.get("ingress", []) for port in rule["ports"])


def stop_times(objects: Objects) -> Iterator[str]:
    """A container is killed only after the time in which its process stops by itself."""
    api, worker = objects.containers["api"], objects.containers["worker"]
    graceful = int(search(r"^graceful_timeout = (\d+)", objects.files.text("infra/gunicorn.conf.py")) or 0)
    waits = api.body["lifecycle"]["preStop"]["sleep"]["seconds"]
    if api.pod["terminationGracePeriodSeconds"] <= waits + graceful:
        yield f"the API is killed before preStop ({waits} s) and its graceful_timeout ({graceful} s) are over"
    if worker.pod["terminationGracePeriodSeconds"] <= int(worker.values["SOFT_SHUTDOWN_SECONDS"]):
        yield "a worker is killed before its SOFT_SHUTDOWN_SECONDS are over"
    environment = objects.files.dockerfiles["worker"].environment
    for variable in ("REMAP_SIGTERM", "HEARTBEAT_FILE"):
        yield from differences(
            variable, {"the chart": worker.values.get(variable, ""), "Dockerfile.worker": environment[variable]}
        )


def migration(objects: Objects) -> Iterator[str]:
    """The migration runs before the pods change, and needs nothing that is created after it."""
    job = objects.containers["migrate"]
    hooks = [
        (manifest["kind"], hook)
        for manifest in objects.manifests
        if (hook := manifest["metadata"].get("annotations", {}).get("helm.sh/hook"))
    ]
    if hooks != [("Job", "pre-install,pre-upgrade")]:
        yield f"the hooks are {hooks}"
    if "serviceAccountName" in job.pod:
        yield "migrate: on the first installation the service account does not exist yet"
    if job.pod.get("restartPolicy") != "Never":
        yield "migrate: the log of a container that is restarted is lost"


def network(objects: Objects) -> Iterator[str]:
    """Every pod has a policy for both directions. Only the API and metrics can be reached, and not by everyone."""
    policies = {
        policy["metadata"]["labels"]["app.kubernetes.io/component"]: policy for policy in objects.all("NetworkPolicy")
    }
    for name in objects.containers:
        policy = policies.get(name, {}).get("spec", {})
        if policy.get("policyTypes") != ["Ingress", "Egress"]:
            yield f"{name} has no network policy for both directions"
        for rule in policy.get("ingress", []):
            if name in ("migrate", "flower") or not rule.get("from") or not rule.get("ports"):
                yield f"{name} can be reached by {rule.get('from', 'everything')}"
        if not all(rule.get("ports") for rule in policy.get("egress", [])):
            yield f"{name} reaches all ports"


def scaling(objects: Objects) -> Iterator[str]:
    """KEDA counts what workers claim, in the queue that wakes them up, and nothing else sets the number of workers."""
    worker = objects.containers["worker"].owner
    scaled = list(objects.all("ScaledObject"))
    if bool(scaled) == ("replicas" in worker["spec"]):
        yield "the number of workers is set twice or never"
    for target in scaled:
        if target["spec"]["scaleTargetRef"]["name"] != worker["metadata"]["name"]:
            yield "the ScaledObject scales something else"
        triggers = [(trigger["type"], trigger["metadata"]) for trigger in target["spec"]["triggers"]]
        if not all(CLAIMABLE in metadata["query"] for kind, metadata in triggers if kind == "postgresql"):
            yield "the query does not count what workers claim"
        lists = {metadata["listName"] for kind, metadata in triggers if kind == "redis"}
        queues = set(map(queue_name, _models(objects) or [DEFAULT_ROUTE]))
        if lists != queues:
            yield f"the lists are {sorted(lists)}, and the queues {sorted(queues)}"
        known = {each["metadata"]["name"] for each in objects.all("TriggerAuthentication")}
        if not {trigger["authenticationRef"]["name"] for trigger in target["spec"]["triggers"]} <= known:
            yield "a trigger's TriggerAuthentication does not exist"


def monitoring(objects: Objects) -> Iterator[str]:
    """Prometheus calls the jobs as in infra/monitoring, and reads metrics with the token."""
    config = yaml.safe_load(objects.files.text("infra/monitoring/prometheus/prometheus.yml"))
    known = {job["job_name"] for job in config["scrape_configs"]}
    for monitor in objects.all("PodMonitor"):
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        jobs = {each["replacement"] for each in endpoint["relabelings"] if each["targetLabel"] == "job"}
        if not jobs or not jobs <= known:
            yield f"PodMonitor {monitor['metadata']['name']}: the job is {jobs}"
        if endpoint.get("authorization", {}).get("credentials", {}).get("key") != "METRICS_TOKEN":
            yield f"PodMonitor {monitor['metadata']['name']} does not use METRICS_TOKEN"


def versions(objects: Objects) -> Iterator[str]:
    """The chart has the version of the project."""
    chart = yaml.safe_load(objects.files.text(f"{CHART}/Chart.yaml"))
    project = tomllib.loads(objects.files.text("pyproject.toml"))["project"]["version"]
    found = {"version": chart["version"], "appVersion": chart["appVersion"], "pyproject.toml": project}
    yield from differences("the chart's version", found)


RULES: tuple[Callable[[Objects], Iterator[str]], ...] = (
    hardening, images, probes, secrets, models, settings, ports, selectors, stop_times, migration, network, scaling,
    monitoring, versions,
)  # fmt: skip


def find_problems(root: Path, *, tools: Path = TOOLS) -> list[str]:
    """Return a sentence for each problem in the chart below `root`. Raises ToolMissingError if Helm is missing."""
    try:
        rendered = render(root, tools=tools)
    except ChartError as error:
        return [str(error)]
    files = DeploymentFiles(root, tools)
    return [
        f"{name}: {problem}"
        for name, manifests in rendered.items()
        for rule in RULES
        for problem in rule(Objects(manifests, files))
    ]
