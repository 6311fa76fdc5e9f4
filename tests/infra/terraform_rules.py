"""Rules for the Terraform in infra/aws/. A rule takes a configuration and yields a line for each problem."""

import ast
import re
from collections.abc import Iterator

from infra.monitoring import cloudwatch
from tests.infra.hcl import Configuration, expressions, plain, references
from tests.support.servers import ROOT

WHOLE_INTERNET = ("0.0.0.0/0", "::/0")
#: Variables of tasks that are not settings of the application.
OTHER_VARIABLES = {"REMAP_SIGTERM", "FLOWER_PORT", "FLOWER_PASSWORD"}
SECRET_NAME = re.compile(r"SECRET|PASSWORD|TOKEN$|_KEY$|AUTH|^DATABASE_URL$|^REDIS_URL$")
#: Arguments that contain a secret, and the only values that these may refer to.
SECRET_ARGUMENTS = {"password", "password_wo", "auth_token", "secret_string", "secret_string_wo", "secret_binary"}
SECRET_SOURCES = re.compile(r"^(ephemeral\.)?random_password\.|^local\.(generated|redis_url)$")
REQUIRED_SECRETS = {"DATABASE_URL", "REDIS_URL", "JWT_SECRET_KEY"}
#: In seconds: the maximum of `Prefer: wait`, and the interval of WebSocket pings.
MAX_WAIT_SECONDS, PING_SECONDS = 60, 25

#: By resource type: arguments that must be set, to this value unless it is None.
PROTECTION: dict[str, dict[str, str | None]] = {
    "aws_db_instance": {
        "storage_encrypted": "True",
        "kms_key_id": None,
        "performance_insights_kms_key_id": None,
        "multi_az": "True",
        "publicly_accessible": "False",
        "deletion_protection": None,
        "backup_retention_period": None,
    },
    "aws_elasticache_replication_group": {
        "at_rest_encryption_enabled": "True",
        "transit_encryption_enabled": "True",
        "transit_encryption_mode": "required",
        "auth_token": None,
        "kms_key_id": None,
        "multi_az_enabled": "True",
        "automatic_failover_enabled": "True",
    },
    "aws_cloudwatch_log_group": {"kms_key_id": None, "retention_in_days": None},
    "aws_secretsmanager_secret": {"kms_key_id": None},
    "aws_sns_topic": {"kms_master_key_id": None},
    "aws_kms_key": {"enable_key_rotation": "True"},
    "aws_ecr_repository": {"image_tag_mutability": "IMMUTABLE"},
    "aws_lb": {"enable_deletion_protection": None, "drop_invalid_header_fields": "True"},
}
PARAMETERS = {
    ("aws_db_parameter_group", "rds.force_ssl"): "1",
    ("aws_elasticache_parameter_group", "maxmemory-policy"): "noeviction",
}


def declarations_are_used(config: Configuration) -> Iterator[str]:
    """Every variable, local, data source and password is used."""
    used = {target for user, target in config.references() if user != target}
    addresses = [f"local.{name}" for name in config.locals]
    addresses += [block.address for kind in ("variable", "data", "ephemeral") for block in config.find(kind)]
    yield from (f"{address} is not used" for address in addresses if address not in used)


def variables_are_described(config: Configuration) -> Iterator[str]:
    """Every variable has a type and a description, and every output a description."""
    for block in config.find("variable") + config.find("output"):
        for argument in ("description", "type") if block.kind == "variable" else ("description",):
            if not block.text(argument):
                yield f"{block.address} has no {argument}"


def only_the_load_balancer_is_public(config: Configuration) -> Iterator[str]:
    """Only the load balancer's security group is open to the internet."""
    for group in config.find("resource", "aws_security_group") + config.find("resource", "aws_default_security_group"):
        if group.nested("ingress") or group.nested("egress"):
            yield f"{group.address} has inline rules; each rule must be a resource"
    for type_ in ("aws_security_group_rule", "aws_vpc_security_group_ingress_rule"):
        for rule in config.find("resource", type_):
            sources = " ".join(map(str, rule.body.values()))
            if (
                any(cidr in sources for cidr in WHOLE_INTERNET)
                and rule.text("security_group_id") != "aws_security_group.alb.id"
            ):
                yield f"{rule.address} is open to the internet"
    default = next(block for block in config.find("variable") if block.address == "var.flower_cidrs").body.get(
        "default"
    )
    if default != []:
        yield f"var.flower_cidrs is open by default to {default}"


def stored_data_is_protected(config: Configuration) -> Iterator[str]:
    """Encryption, standbys and deletion protection are on wherever they exist."""
    for type_, required in PROTECTION.items():
        blocks = config.find("resource", type_)
        if not blocks:
            yield f"{type_} does not exist"
        for block in blocks:
            for argument, value in required.items():
                given = block.text(argument)
                if not given or value not in (None, given):
                    yield f"{block.address}: {argument} is {given or 'not set'}"
    for (type_, name), value in PARAMETERS.items():
        for block in config.find("resource", type_):
            given = {plain(one["name"]): plain(one["value"]) for one in block.nested("parameter")}
            if given.get(name) != value:
                yield f"{block.address}: {name} is {given.get(name)}"
    for repository in config.find("resource", "aws_ecr_repository"):
        if not any(plain(one["encryption_type"]) == "KMS" for one in repository.nested("encryption_configuration")):
            yield f"{repository.address} is not encrypted"
        if not any(one["scan_on_push"] is True for one in repository.nested("image_scanning_configuration")):
            yield f"{repository.address} is not scanned"
    encrypted = {
        target
        for block in config.find("resource", "aws_s3_bucket_server_side_encryption_configuration")
        for target in references(block.body)
    }
    for bucket in config.find("resource", "aws_s3_bucket"):
        if bucket.address not in encrypted:
            yield f"{bucket.address} is not encrypted"


def only_https_is_served(config: Configuration) -> Iterator[str]:
    """Listeners use TLS 1.2 or newer, or redirect to HTTPS. Nothing is sticky, and /metrics is hidden."""
    for listener in config.find("resource", "aws_lb_listener"):
        actions = [plain(action["type"]) for action in listener.nested("default_action")]
        if listener.text("protocol") == "HTTPS":
            if not listener.text("ssl_policy").startswith("ELBSecurityPolicy-TLS13-1-2"):
                yield f"{listener.address} allows old TLS"
        elif actions != ["redirect"]:
            yield f"{listener.address} serves HTTP"
    for group in config.find("resource", "aws_lb_target_group"):
        if group.nested("stickiness"):
            yield f"{group.address} is sticky"
    hidden = str([rule.body for rule in config.find("resource", "aws_lb_listener_rule")])
    if '"/metrics"' not in hidden or '"fixed-response"' not in hidden:
        yield "/metrics is public"


def secrets_come_from_secrets_manager(config: Configuration) -> Iterator[str]:
    """Secrets reach the tasks through Secrets Manager only: none is a literal or in a task's environment."""
    for block in config.find("resource"):
        for argument in SECRET_ARGUMENTS & block.body.keys():
            if not any(SECRET_SOURCES.match(target) for target in references(block.body[argument])):
                yield f"{block.address}: {argument} is not one of the generated secrets"
        if block.type == "aws_secretsmanager_secret_version" and "secret_string_wo" not in block.body:
            yield f"{block.address} is stored in the state"
    for name, value in _environments(config):
        if SECRET_NAME.search(name):
            yield f"{name} is in the environment instead of the secrets"
        if any(SECRET_SOURCES.match(target) for target in references(value)):
            yield f"{name} puts a secret into the environment"
    if "valueFrom = local.secret_arns[key]" not in config.locals["containers"]:
        yield "the tasks' secrets do not come from Secrets Manager"
    for task, body in config.locals["tasks"].items():
        given = set(re.findall(r"[A-Z_]{4,}", str(_resolve(config, body["secrets"]))))
        if task != "flower" and given < REQUIRED_SECRETS:
            yield f"{task} lacks {', '.join(sorted(REQUIRED_SECRETS - given))}"
        if task == "flower" and "FLOWER_PASSWORD" not in given:
            yield "flower has no password"
        if task == "api" and "METRICS_TOKEN" not in given:
            yield "api has no METRICS_TOKEN, so the sidecar cannot read its metrics"
    generated = set(re.findall(r'"([A-Z_]+)"', str(config.locals["generated_names"])))
    if generated != set(config.locals["generated"]):
        yield f"generated_names and generated differ: {sorted(generated ^ set(config.locals['generated']))}"
    (settings,) = (block for block in config.find("variable") if block.address == "var.settings")
    yield from (f"var.settings accepts {name}" for name in sorted(generated) if f'"{name}"' not in str(settings.body))
    for variable in config.find("variable"):
        if re.search(r"password|secret_key|token", variable.address):
            yield f"{variable.address} would contain a secret"


def outputs_hide_secrets(config: Configuration) -> Iterator[str]:
    """An output that contains a secret is marked as sensitive."""
    for output in config.find("output"):
        secret = any(SECRET_SOURCES.match(target) for target in references(output.body["value"]))
        if secret and output.body.get("sensitive") is not True:
            yield f"{output.address} shows a secret"


def settings_exist(config: Configuration) -> Iterator[str]:
    """The application reads every variable in a task's environment, and the profile is production."""
    example = (ROOT / ".env.example").read_text()
    known = OTHER_VARIABLES | set(re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE))
    given = dict(_environments(config))
    secrets = set(re.findall(r'"([A-Z_]+)"', str(config.locals["generated_names"]) + str(config.locals["app_secrets"])))
    yield from (f"{name} is not a setting" for name in sorted(given.keys() | secrets) if name not in known)
    for name, value in {
        "APP_ENV": '"prod"',
        "PUBLIC_URL": '"https://${var.domain_name}"',
        "TRUSTED_PROXIES": '"1"',
        "LISTEN_ADDRESS": '"0.0.0.0"',
    }.items():
        if given.get(name) != value:
            yield f"{name} is {given.get(name)}"


def ports_agree(config: Configuration) -> Iterator[str]:
    """Ports are the defaults of the API and Flower, and those in the containers."""
    compose = (ROOT / "docker-compose.yml").read_text()
    example = (ROOT / ".env.example").read_text()
    for name, setting in {"api_port": "PORT", "flower_port": "FLOWER_PORT"}.items():
        port = config.locals[name]
        if f"# {setting}={port}\n" not in example or f":{port}" not in compose:
            yield f"local.{name} is {port}"
    if f"EXPOSE {config.locals['api_port']}" not in (ROOT / "Dockerfile.api").read_text():
        yield "Dockerfile.api exposes another port"


def containers_agree(config: Configuration) -> Iterator[str]:
    """Commands, health checks and image names are the same as in the Dockerfiles and docker-compose.yml."""
    tasks = config.locals["tasks"]
    compose = (ROOT / "docker-compose.yml").read_text()
    for name in ("api", "worker"):
        dockerfile = (ROOT / f"Dockerfile.{name}").read_text().replace("\\\n", " ")
        for what, instruction in (("command", r"^CMD"), ("health", r"^HEALTHCHECK .* CMD")):
            expected = ast.literal_eval(re.findall(rf"{instruction} (\[.*\])$", dockerfile, re.MULTILINE)[-1])
            given = _words(config, tasks[name][what])
            if given[what == "health" :] != expected:
                yield f"{name}: {what} is {given}, but {expected} in its Dockerfile"
        if f"image: promptwire-{name}:" not in compose:
            yield f"docker-compose.yml has another image name for {name}"
    for name in ("migrate", "flower"):
        command = ", ".join(_words(config, tasks[name]["command"]))
        if f"command: [{command}]" not in compose:
            yield f"{name}: command is {command}, but another one in docker-compose.yml"


def metrics_exist(config: Configuration) -> Iterator[str]:
    """Scaling and alarms use only metrics that the sidecar prints, and the sidecar runs that program."""
    everything = " ".join(str(block.body) for block in config.find("resource")) + str(config.locals)
    yield from (
        f"the sidecar does not print {name}"
        for name in set(re.findall(r"promptwire_\w+", everything)) - cloudwatch.UNITS.keys()
    )
    if f'"{cloudwatch.__name__}"' not in str(config.locals["metrics_container"]):
        yield "the sidecar runs another program"


def timeouts_are_in_order(config: Configuration) -> Iterator[str]:
    """Time-outs are longer than the times they have to cover."""
    gunicorn = (ROOT / "infra/gunicorn.conf.py").read_text()
    keepalive, graceful = (
        int(re.findall(rf"^{name} = (\d+)$", gunicorn, re.MULTILINE)[0]) for name in ("keepalive", "graceful_timeout")
    )
    idle = int(config.find("resource", "aws_lb")[0].body["idle_timeout"])
    if not max(MAX_WAIT_SECONDS, 2 * PING_SECONDS) < idle < keepalive:
        yield f"idle_timeout is {idle}: it must be above {MAX_WAIT_SECONDS} (wait) and below {keepalive} (keepalive)"
    stop = config.locals["stop"]
    if stop["api"] < graceful + 2:
        yield f"local.stop.api is {stop['api']}, but the API needs {graceful} s"
    if not 30 < stop["worker"] <= 120:
        yield f"local.stop.worker is {stop['worker']}: Fargate allows up to 120, and releasing prompts needs 20"


def roles_have_few_permissions(config: Configuration) -> Iterator[str]:
    """Permissions have no wildcards, and only one branch can assume GitHub's role."""
    for policy in config.find("data", "aws_iam_policy_document"):
        for statement in policy.nested("statement"):
            actions = [plain(action) for action in statement["actions"]]
            wildcards = [action for action in actions if re.fullmatch(r"\*|(?!kms)\w+:\*", action)]
            if wildcards and plain(statement.get("effect", "Allow")) == "Allow":
                yield f"{policy.address} allows {', '.join(wildcards)}"
            everything = [plain(resource) for resource in statement.get("resources", [])] == ["*"]
            if everything and "_key" not in policy.address and set(actions) - _ACTIONS_WITHOUT_RESOURCES:
                yield f"{policy.address} allows {', '.join(actions)} on everything"
    subjects = str(next(block for block in config.find("data") if block.address.endswith(".github_assume")).body)
    if "repo:${var.github_repository}:ref:refs/heads/main" not in subjects:
        yield "other branches can assume GitHub's role"


_ACTIONS_WITHOUT_RESOURCES = {"ecr:GetAuthorizationToken", "ecs:DescribeTaskDefinition"}

RULES = (
    declarations_are_used,
    variables_are_described,
    only_the_load_balancer_is_public,
    stored_data_is_protected,
    only_https_is_served,
    secrets_come_from_secrets_manager,
    outputs_hide_secrets,
    settings_exist,
    ports_agree,
    containers_agree,
    metrics_exist,
    timeouts_are_in_order,
    roles_have_few_permissions,
)


def _environments(config: Configuration) -> Iterator[tuple[str, str]]:
    """The variables in all tasks' environments, with their expressions."""
    bodies = [config.locals["environment"], *(task["environment"] for task in config.locals["tasks"].values())]
    for body in bodies:
        for expression in expressions(body):
            yield from re.findall(r"\b([A-Z][A-Z0-9_]+) = ((?:\$\{[^}]*\}|[^,(}]|\([^)]*\))+)", expression)
    yield from re.findall(r'{name = "(\w+)", value = ([^}]+)}', config.locals["metrics_container"])


def _resolve(config: Configuration, value: object) -> object:
    """A value; if it refers to a local, the value of the local."""
    match = re.fullmatch(r"\$\{local\.(\w+)\}", value) if isinstance(value, str) else None
    return config.locals[match[1]] if match else value


def _words(config: Configuration, value: list[str]) -> list[str]:
    """A command's words, with the values of locals inserted."""
    return [re.sub(r"\$\{local\.(\w+)\}", lambda found: str(config.locals[found[1]]), plain(word)) for word in value]
