"""The files that deploy the service agree, and a broken name, port, right or secret is reported."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.checks.__main__ import Check, list_checks
from infra.checks.compose import ComposeError, find_compose, read_compose
from infra.checks.rules import find_problems
from infra.checks.tools import TOOLS, ToolMissingError
from infra.local.servers import NO_TEXTS_IN_LOG
from tests.support.servers import MAX_WAIT_SECONDS, ROOT

needs_compose = pytest.mark.skipif(
    not find_compose(TOOLS).exists(), reason="Compose is not installed: `make check-infra` installs it"
)

_FILES = ("Dockerfile.*", "docker-compose.yml", ".dockerignore", ".env.example", "Makefile", "requirements.txt")
COMPOSE, API, WORKER, CI = "docker-compose.yml", "Dockerfile.api", "Dockerfile.worker", ".github/workflows/ci.yml"
_FOLDERS = (".github", "api", "worker", "infra/checks")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the files that are checked, for tests to break."""
    for path in [found for pattern in _FILES for found in ROOT.glob(pattern)]:
        shutil.copy(path, tmp_path)
    for folder in _FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "infra/gunicorn.conf.py", tmp_path / "infra")
    return tmp_path


def change(file: Path, pattern: str, replacement: str) -> None:
    """Break a file. Fail if the pattern does not match, because then nothing would be broken."""
    changed, times = re.subn(pattern, replacement, file.read_text(), flags=re.MULTILINE)
    assert times, f"{pattern} is not in {file.name}"
    file.write_text(changed)


@needs_compose
def test_the_files_agree() -> None:
    assert find_problems(ROOT) == []


@needs_compose
@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "says"),
    [
        # names
        (COMPOSE, "APP_ENV: prod", "APP_ENVIRONMENT: prod", "sets APP_ENVIRONMENT, which nothing reads"),
        (WORKER, "HEARTBEAT_FILE=", "HEARTBEAT=", "sets HEARTBEAT, which nothing reads"),
        (COMPOSE, r"\$\{FLOWER_PORT", "${FLOWERS_PORT", "reads FLOWERS_PORT, which is not in .env.example"),
        (COMPOSE, "image: promptwire-api:", "image: promptwire-app:", "is not the one that Dockerfile.api builds"),
        (COMPOSE, r"command: \[alembic", "build: {context: ., dockerfile: Dockerfile.api}\n    command: [alembic",
         "api and migrate both build promptwire-api:latest"),
        (COMPOSE, "@postgres:5432", "@database:5432", "names database, which is not a service"),
        (COMPOSE, "5432/promptwire", "5432/prompts", "the database differs"),
        (COMPOSE, "POSTGRES_USER: promptwire", "POSTGRES_USER: app", "the database's user differs"),
        (COMPOSE, r"networks: \[queue\]", "networks: [queues]", "undefined network queues"),
        (COMPOSE, r"networks: \[out, database, queue\]", "networks: [out, queue]", "no network with postgres"),
        (API, r'"api\.wsgi:app"', '"api.server:app"', "api/server.py does not exist"),
        (WORKER, r'"worker\.app"', '"worker.main"', "worker/main.py does not exist"),
        (WORKER, "COPY worker worker\n", "", "worker/app.py does not exist or is not in the image"),
        (API, "COPY infra/__init__.py infra/gunicorn.conf.py infra/\n", "", "infra/gunicorn.conf.py does not exist"),
        (COMPOSE, r"\[alembic,", "[alembik,", "alembik is not in requirements.txt"),
        (".dockerignore", "!shared\n", "", "copies shared, which .dockerignore excludes"),
        (CI, "make check-infra", "make check-infrastructure", "has no target check-infrastructure"),
        # ports
        (API, "EXPOSE 8000", "EXPOSE 8080", "the API's port differs: 8000 in the settings"),
        (API, "PORT=8000", "PORT=8001", "the API's port differs"),
        (API, "127.0.0.1:8000/livez", "127.0.0.1:80/livez", "the API's port differs"),
        (COMPOSE, ":8000:8000|:-8000}:8000", ":-8000}:8080", "the API's port differs"),
        (COMPOSE, 'FLOWER_PORT: "5555"', 'FLOWER_PORT: "5556"', "Flower's port differs"),
        (COMPOSE, "port 6379", "port 6380", "Redis's port differs"),
        (COMPOSE, 'REDIS_URL: (.*):6379', r"REDIS_URL: \1:6378", "Redis's port differs"),
        (COMPOSE, '-p, "5432"', '-p, "5433"', "PostgreSQL's port differs"),
        # secrets
        (COMPOSE, r"JWT_SECRET_KEY: \$\{.*\}", "JWT_SECRET_KEY: k3Yn8k3Yn8", "JWT_SECRET_KEY is written out"),
        (COMPOSE, r"POSTGRES_PASSWORD: \$.*", "POSTGRES_PASSWORD: hunter2", "POSTGRES_PASSWORD is written out"),
        (COMPOSE, r"FLOWER_PASSWORD: \$.*", "FLOWER_PASSWORD: hunter2", "FLOWER_PASSWORD is written out"),
        (COMPOSE, "promptwire@postgres", "promptwire:hunter2@postgres", "looks like a secret"),
        (WORKER, "ENV APP_ENV=prod", "ENV APP_ENV=prod JWT_SECRET_KEY=k", "sets JWT_SECRET_KEY, which would"),
        (API, 'ARG MINILM=""', 'ARG INDEX_TOKEN=""', "sets INDEX_TOKEN, which would stay"),
        (CI, "permissions: {}", "env: {K: AKIAABCDEFGHIJKLMNOP}", "looks like a secret: AKIAABCD"),
        # exposure and rights
        (COMPOSE, r"networks: \[queue\]", 'networks: [queue]\n    ports: ["6379"]', "redis has a published port"),
        (COMPOSE, r"database: \{internal: true\}", "database: {}", "a network that is not internal"),
        (COMPOSE, r"\$\{LISTEN_ADDRESS:-127.0.0.1\}", "${LISTEN_ADDRESS:-0.0.0.0}", "published to other machines"),
        (COMPOSE, "  worker:\n", "  worker:\n    container_name: worker\n", "worker has a fixed name"),
        (COMPOSE, "  read_only: true", "  read_only: false", "api lacks read_only"),
        (COMPOSE, "stop_grace_period: 20s", "stop_grace_period: 5s", "before its graceful_timeout"),
        (COMPOSE, "pgvector:0.8.6-pg18-bookworm", "pgvector:pg18", "is not pinned to a version"),
        (WORKER, "USER 10001:10001", "USER promptwire", "USER is not a numeric id"),
        (API, r'CMD \["gunicorn", (.*)\]', r"CMD gunicorn \1", "not in exec form"),
        (WORKER, "^HEALTHCHECK .*$", "", "Dockerfile.worker has no HEALTHCHECK"),
        (WORKER, "--require-hashes", "", "differ in more than their last stage"),
    ],
)  # fmt: skip
def test_a_broken_file_is_reported(copy: Path, file: str, pattern: str, replacement: str, says: str) -> None:
    change(copy / file, pattern, replacement)
    problems = find_problems(copy)
    assert any(says in problem for problem in problems), problems


@needs_compose
class TestVariables:
    def test_defaults_apply_where_a_variable_is_not_set(self) -> None:
        services = read_compose(ROOT, {"JWT_SECRET_KEY": "key"})["services"]
        assert services["api"]["image"] == "promptwire-api:latest"
        assert services["api"]["environment"]["REDIS_PASSWORD"] == "key"

    def test_a_variable_replaces_its_default(self) -> None:
        services = read_compose(ROOT, {"JWT_SECRET_KEY": "key", "REDIS_PASSWORD": "other", "TAG": "7"})["services"]
        assert services["api"]["image"] == "promptwire-api:7"
        assert services["api"]["environment"]["REDIS_PASSWORD"] == "other"

    def test_an_escaped_dollar_is_left_to_the_container(self) -> None:
        redis = read_compose(ROOT, {"JWT_SECRET_KEY": "key"})["services"]["redis"]
        assert "requirepass $VALKEYCLI_AUTH" in redis["command"][-1]

    def test_the_file_is_rejected_without_the_secret(self) -> None:
        with pytest.raises(ComposeError, match=r"JWT_SECRET_KEY.*set it in"):
            read_compose(ROOT, {})


def run_check(name: str, root: Path) -> str:
    """Return what the check of this name finds. Skip the test if its tool is not installed."""
    check = next(check for check in list_checks() if check.name == name)
    try:
        return check.run(root)
    except ToolMissingError as error:
        pytest.skip(f"{error}: `make check-infra` installs it")


@pytest.mark.parametrize(
    ("name", "file", "pattern", "replacement", "says"),
    [
        ("Dockerfiles: hadolint", API, "^FROM python:.* AS", "FROM python AS", "DL3006"),
        ("Compose: schema", COMPOSE, "read_only: true", "readonly: true", "readonly"),
        ("Compose: Compose itself", COMPOSE, r"networks: \[queue\]", "networks: [queues]", "undefined network"),
        ("Compose: Compose itself", COMPOSE, "redis: {condition", "reddis: {condition", "reddis"),
        ("Compose: Compose itself", ".env.example", "^JWT_SECRET_KEY=$", "JWT_KEY=k", "set it in .env"),
        ("Workflows: schema", CI, "runs-on:", "runs-in:", "runs-in"),
        ("Workflows: actionlint", CI, "matrix.image", "matrix.picture", "picture"),
        ("Workflows: zizmor", CI, "checkout@[0-9a-f]{40}", "checkout@v7", "unpinned-uses"),
        ("Workflows: zizmor", CI, "persist-credentials: false", "fetch-depth: 1", "artipacked"),
        ("Dependabot: schema", ".github/dependabot.yml", "version: 2", "version: 3", "version"),
    ],
)  # fmt: skip
def test_a_tool_reports_a_broken_file(
    copy: Path, name: str, file: str, pattern: str, replacement: str, says: str
) -> None:
    assert run_check(name, copy) == ""
    change(copy / file, pattern, replacement)
    assert says in run_check(name, copy)


def test_a_missing_tool_is_an_error(copy: Path) -> None:
    with pytest.raises(ToolMissingError, match="no-such-tool"):
        Check("any", ["no-such-tool"]).run(copy)


@pytest.mark.parametrize("arguments", [[], ["--if-possible"]])
def test_missing_tools_fail_the_run_unless_the_caller_allows_them(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "infra.checks", "--tools", "/nowhere", *arguments]
    result = subprocess.run(
        command, cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True, check=False, timeout=MAX_WAIT_SECONDS
    )
    assert "NOT CHECKED  Names, ports, networks, secrets" in result.stdout
    assert "NOT CHECKED  Terraform: format" in result.stdout
    assert result.returncode == (0 if arguments else 1), result.stdout


@pytest.mark.parametrize("setting", NO_TEXTS_IN_LOG)
def test_no_postgres_logs_users_texts(setting: str) -> None:
    assert f"- -c{setting}\n" in (ROOT / COMPOSE).read_text()
    name, value = setting.split("=")
    (found,) = re.findall(rf'name  = "{name}"\n\s+value = "(.*)"', (ROOT / "infra/aws/database.tf").read_text())
    assert found == ("ddl" if name == "log_statement" else value)  # DDL has no texts
