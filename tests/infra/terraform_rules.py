"""Rules for the Terraform in infra/aws/. A rule takes a configuration and returns a line for each finding."""

import ast
import re
from collections.abc import Iterator

from infra.monitoring import cloudwatch
from tests.infra.hcl import Configuration, expressions, plain, references
from tests.support.servers import ROOT

ANYBODY = ("0.0.0.0/0", "::/0")
#: What tasks get beside the settings in .env.example.
OTHER_NAMES = {"REMAP_SIGTERM", "CELERY_BROKER_URL", "FLOWER_BASIC_AUTH"}
SECRET_NAME = re.compile(r"SECRET|PASSWORD|TOKEN$|_KEY$|AUTH|^DATABASE_URL$|^REDIS_URL$|^CELERY_BROKER_URL$")
#: Arguments through which a secret goes, and what such a one may be made of.
SECRET_ARGUMENTS = {"password", "password_wo", "auth_token", "secret_string", "secret_string_wo", "secret_binary"}
SECRET_SOURCES = re.compile(r"^(ephemeral\.)?random_password\.|^local\.(generated|redis_url)$")
NEEDED_SECRETS = {"DATABASE_URL", "REDIS_URL", "JWT_SECRET_KEY"}
#: The longest that a client may ask to wait, in seconds, and how far apart the sockets' pings are.
LONGEST_WAIT, PING = 60, 25

#: By type of resource: arguments that must be there, and have this value if one is given.
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


def names_exist(config: Configuration) -> Iterator[str]:
    """Every variable, local, resource and data source that is referred to is declared."""
    declared = config.declared()
    for user, target in config.references():
        if target not in declared:
            yield f"{user} refers to {target}, which there is not"


def names_are_used(config: Configuration) -> Iterator[str]:
    """No variable, local, data source or password is left over."""
    used = {target for user, target in config.references() if user != target}
    leftovers = [f"local.{name}" for name in config.locals]
    leftovers += [block.address for kind in ("variable", "data", "ephemeral") for block in config.of(kind)]
    yield from (f"{address} is not used" for address in leftovers if address not in used)


def variables_are_explained(config: Configuration) -> Iterator[str]:
    """Every variable has a type and a description, every output a description."""
    for block in config.of("variable") + config.of("output"):
        for argument in ("description", "type") if block.kind == "variable" else ("description",):
            if not block.text(argument):
                yield f"{block.address} has no {argument}"


def only_the_load_balancer_is_open(config: Configuration) -> Iterator[str]:
    """Nothing but the load balancer's security group lets anybody in."""
    for group in config.of("resource", "aws_security_group") + config.of("resource", "aws_default_security_group"):
        if group.inner("ingress") or group.inner("egress"):
            yield f"{group.address} has rules of its own: each is a resource"
    for type_ in ("aws_security_group_rule", "aws_vpc_security_group_ingress_rule"):
        for rule in config.of("resource", type_):
            sources = " ".join(map(str, rule.body.values()))
            if (
                any(cidr in sources for cidr in ANYBODY)
                and rule.text("security_group_id") != "aws_security_group.alb.id"
            ):
                yield f"{rule.address} lets anybody in"
    default = next(block for block in config.of("variable") if block.address == "var.flower_cidrs").body.get("default")
    if default != []:
        yield f"var.flower_cidrs is open by default to {default}"


def what_is_stored_is_protected(config: Configuration) -> Iterator[str]:
    """Encryption, standbys and protection from deletion are on wherever they exist."""
    for type_, wanted in PROTECTION.items():
        blocks = config.of("resource", type_)
        if not blocks:
            yield f"there is no {type_}"
        for block in blocks:
            for argument, value in wanted.items():
                given = block.text(argument)
                if not given or value not in (None, given):
                    yield f"{block.address}: {argument} is {given or 'not set'}"
    for (type_, name), value in PARAMETERS.items():
        for block in config.of("resource", type_):
            given = {plain(one["name"]): plain(one["value"]) for one in block.inner("parameter")}
            if given.get(name) != value:
                yield f"{block.address}: {name} is {given.get(name)}"
    for repository in config.of("resource", "aws_ecr_repository"):
        if not any(plain(one["encryption_type"]) == "KMS" for one in repository.inner("encryption_configuration")):
            yield f"{repository.address} is not encrypted"
        if not any(one["scan_on_push"] is True for one in repository.inner("image_scanning_configuration")):
            yield f"{repository.address} is not scanned"
    encrypted = {
        target
        for block in config.of("resource", "aws_s3_bucket_server_side_encryption_configuration")
        for target in references(block.body)
    }
    for bucket in config.of("resource", "aws_s3_bucket"):
        if bucket.address not in encrypted:
            yield f"{bucket.address} is not encrypted"


def only_https_is_served(config: Configuration) -> Iterator[str]:
    """Listeners speak TLS 1.2 or newer, or redirect to those that do; nothing is sticky; /metrics is not shown."""
    for listener in config.of("resource", "aws_lb_listener"):
        actions = [plain(action["type"]) for action in listener.inner("default_action")]
        if listener.text("protocol") == "HTTPS":
            if not listener.text("ssl_policy").startswith("ELBSecurityPolicy-TLS13-1-2"):
                yield f"{listener.address} admits old TLS"
        elif actions != ["redirect"]:
            yield f"{listener.address} serves HTTP"
    for group in config.of("resource", "aws_lb_target_group"):
        if group.inner("stickiness"):
            yield f"{group.address} is sticky"
    hidden = str([rule.body for rule in config.of("resource", "aws_lb_listener_rule")])
    if '"/metrics"' not in hidden or '"fixed-response"' not in hidden:
        yield "/metrics is shown to anybody"


def secrets_come_from_secrets_manager(config: Configuration) -> Iterator[str]:
    """No secret is written down, stands in a task's environment, or goes another way than Secrets Manager."""
    for block in config.of("resource"):
        for argument in SECRET_ARGUMENTS & block.body.keys():
            if not any(SECRET_SOURCES.match(target) for target in references(block.body[argument])):
                yield f"{block.address}: {argument} is none of the generated ones"
        if block.type == "aws_secretsmanager_secret_version" and "secret_string_wo" not in block.body:
            yield f"{block.address} is kept in the state"
    for name, value in _environments(config):
        if SECRET_NAME.search(name):
            yield f"{name} stands in the environment, not among the secrets"
        if any(SECRET_SOURCES.match(target) for target in references(value)):
            yield f"{name} carries a secret in the environment"
    if "valueFrom = local.secret_arns[key]" not in config.locals["containers"]:
        yield "tasks' secrets are none of Secrets Manager's"
    for task, body in config.locals["tasks"].items():
        given = set(re.findall(r"[A-Z_]{4,}", str(_resolved(config, body["secrets"]))))
        if task != "flower" and given < NEEDED_SECRETS:
            yield f"{task} lacks {', '.join(sorted(NEEDED_SECRETS - given))}"
        if task == "flower" and "FLOWER_BASIC_AUTH" not in given:
            yield "flower asks for no password"
        if task == "api" and "METRICS_TOKEN" not in given:
            yield "api shows its metrics to nobody, the sidecar included"
    made = set(re.findall(r'"([A-Z_]+)"', str(config.locals["generated_names"])))
    if made != set(config.locals["generated"]):
        yield f"generated_names and generated differ: {sorted(made ^ set(config.locals['generated']))}"
    (settings,) = (block for block in config.of("variable") if block.address == "var.settings")
    yield from (f"var.settings may hold {name}" for name in sorted(made) if f'"{name}"' not in str(settings.body))
    for variable in config.of("variable"):
        if re.search(r"password|secret_key|token", variable.address):
            yield f"{variable.address} would carry a secret"


def outputs_show_no_secret(config: Configuration) -> Iterator[str]:
    """An output that is made of a secret is marked as sensitive."""
    for output in config.of("output"):
        secret = any(SECRET_SOURCES.match(target) for target in references(output.body["value"]))
        if secret and output.body.get("sensitive") is not True:
            yield f"{output.address} shows a secret"


def settings_are_ours(config: Configuration) -> Iterator[str]:
    """Every name in a task's environment is one that the application reads, and production is what it is told."""
    example = (ROOT / ".env.example").read_text()
    known = OTHER_NAMES | set(re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE))
    given = dict(_environments(config))
    secrets = set(re.findall(r'"([A-Z_]+)"', str(config.locals["generated_names"]) + str(config.locals["app_secrets"])))
    yield from (f"{name} is no setting" for name in sorted(given.keys() | secrets) if name not in known)
    for name, value in {"APP_ENV": '"prod"', "TRUSTED_PROXIES": '"1"', "HOST": '"0.0.0.0"'}.items():
        if given.get(name) != value:
            yield f"{name} is {given.get(name)}"


def ports_agree(config: Configuration) -> Iterator[str]:
    """Ports are those on which the API and Flower listen by default, and in the containers."""
    compose = (ROOT / "docker-compose.yml").read_text()
    example = (ROOT / ".env.example").read_text()
    for name, setting in {"api_port": "PORT", "flower_port": "FLOWER_PORT"}.items():
        port = config.locals[name]
        if f"# {setting}={port}\n" not in example or f":{port}" not in compose:
            yield f"local.{name} is {port}"
    if f"EXPOSE {config.locals['api_port']}" not in (ROOT / "Dockerfile.api").read_text():
        yield "Dockerfile.api exposes another port"


def containers_agree(config: Configuration) -> Iterator[str]:
    """Commands, health checks and names are those of the Dockerfiles and of docker-compose.yml."""
    tasks = config.locals["tasks"]
    compose = (ROOT / "docker-compose.yml").read_text()
    for name in ("api", "worker"):
        dockerfile = (ROOT / f"Dockerfile.{name}").read_text().replace("\\\n", " ")
        for what, instruction in (("command", r"^CMD"), ("health", r"^HEALTHCHECK .* CMD")):
            wanted = ast.literal_eval(re.findall(rf"{instruction} (\[.*\])$", dockerfile, re.MULTILINE)[-1])
            given = _words(config, tasks[name][what])
            if given[what == "health" :] != wanted:
                yield f"{name}: {what} is {given}, and in its Dockerfile {wanted}"
        if f"image: promptwire-{name}:" not in compose:
            yield f"docker-compose.yml calls the image of {name} otherwise"
    for name in ("migrate", "flower"):
        command = ", ".join(_words(config, tasks[name]["command"]))
        if f"command: [{command}]" not in compose:
            yield f"{name}: command is {command}, and in docker-compose.yml another"


def metrics_are_ours(config: Configuration) -> Iterator[str]:
    """What scales and raises alarms by our own figures names those that the sidecar says, and that one exists."""
    everything = " ".join(str(block.body) for block in config.of("resource")) + str(config.locals)
    yield from (
        f"nobody says {name}" for name in set(re.findall(r"promptwire_\w+", everything)) - cloudwatch.UNITS.keys()
    )
    if f'"{cloudwatch.__name__}"' not in str(config.locals["metrics_container"]):
        yield "the sidecar is another program"


def timeouts_are_in_order(config: Configuration) -> Iterator[str]:
    """Whoever waits is outlasted by whom it waits for."""
    gunicorn = (ROOT / "infra/gunicorn.conf.py").read_text()
    keepalive, graceful = (
        int(re.findall(rf"^{name} = (\d+)$", gunicorn, re.MULTILINE)[0]) for name in ("keepalive", "graceful_timeout")
    )
    idle = int(config.of("resource", "aws_lb")[0].body["idle_timeout"])
    if not max(LONGEST_WAIT, 2 * PING) < idle < keepalive:
        yield f"idle_timeout is {idle}: it must lie between a wait of {LONGEST_WAIT} s and keepalive, {keepalive} s"
    stop = config.locals["stop"]
    if stop["api"] < graceful + 2:
        yield f"local.stop.api is {stop['api']}, and the API takes {graceful} s"
    if not 30 < stop["worker"] <= 120:
        yield f"local.stop.worker is {stop['worker']}: Fargate takes up to 120, and 20 are for handing back"


def roles_may_little(config: Configuration) -> Iterator[str]:
    """No right is given by a wildcard, and GitHub's role is for one branch."""
    for policy in config.of("data", "aws_iam_policy_document"):
        for statement in policy.inner("statement"):
            actions = [plain(action) for action in statement["actions"]]
            wide = [action for action in actions if re.fullmatch(r"\*|(?!kms)\w+:\*", action)]
            if wide and plain(statement.get("effect", "Allow")) == "Allow":
                yield f"{policy.address} allows {', '.join(wide)}"
            everything = [plain(resource) for resource in statement.get("resources", [])] == ["*"]
            if everything and "_key" not in policy.address and set(actions) - _WITHOUT_RESOURCES:
                yield f"{policy.address} allows {', '.join(actions)} on everything"
    subjects = str(next(block for block in config.of("data") if block.address.endswith(".github_assume")).body)
    if "repo:${var.github_repository}:ref:refs/heads/main" not in subjects:
        yield "GitHub's role may be taken by other branches"


_WITHOUT_RESOURCES = {"ecr:GetAuthorizationToken", "ecs:DescribeTaskDefinition"}

RULES = (
    names_exist,
    names_are_used,
    variables_are_explained,
    only_the_load_balancer_is_open,
    what_is_stored_is_protected,
    only_https_is_served,
    secrets_come_from_secrets_manager,
    outputs_show_no_secret,
    settings_are_ours,
    ports_agree,
    containers_agree,
    metrics_are_ours,
    timeouts_are_in_order,
    roles_may_little,
)


def _environments(config: Configuration) -> Iterator[tuple[str, str]]:
    """The names and expressions in all tasks' environments."""
    bodies = [config.locals["environment"], *(task["environment"] for task in config.locals["tasks"].values())]
    for body in bodies:
        for expression in expressions(body):
            yield from re.findall(r"\b([A-Z][A-Z0-9_]+) = ((?:[^,(}]|\([^)]*\))+)", expression)
    yield from re.findall(r'{name = "(\w+)", value = ([^}]+)}', config.locals["metrics_container"])


def _resolved(config: Configuration, value: object) -> object:
    """A value, or that of the local that it names."""
    match = re.fullmatch(r"\$\{local\.(\w+)\}", value) if isinstance(value, str) else None
    return config.locals[match[1]] if match else value


def _words(config: Configuration, value: list[str]) -> list[str]:
    """A command's words, with the numbers that stand in locals."""
    return [re.sub(r"\$\{local\.(\w+)\}", lambda found: str(config.locals[found[1]]), plain(word)) for word in value]
