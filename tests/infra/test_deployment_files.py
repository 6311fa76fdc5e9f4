"""What deploys the service agrees with itself, and a name, a port or a secret that is broken is found."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.checks.__main__ import CannotCheckError, Check, checks
from infra.checks.containers import MissingVariableError, interpolate, read_compose
from infra.checks.deployment_files import findings
from tests.support.servers import ROOT

_FILES = ("Dockerfile.*", "docker-compose.yml", ".dockerignore", ".env.example", "Makefile", "requirements.txt")
COMPOSE, API, WORKER, CI = "docker-compose.yml", "Dockerfile.api", "Dockerfile.worker", ".github/workflows/ci.yml"
_FOLDERS = (".github", "api", "worker", "infra/checks")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that are checked, to be broken."""
    for path in [found for pattern in _FILES for found in ROOT.glob(pattern)]:
        shutil.copy(path, tmp_path)
    for folder in _FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "infra/gunicorn.conf.py", tmp_path / "infra")
    return tmp_path


def change(file: Path, pattern: str, replacement: str) -> None:
    """Breaks a file; fails if there is nothing to break."""
    changed, times = re.subn(pattern, replacement, file.read_text(), flags=re.MULTILINE)
    assert times, f"{pattern} is not in {file.name}"
    file.write_text(changed)


def test_all_is_well() -> None:
    assert findings(ROOT) == []


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "says"),
    [
        # names
        (COMPOSE, "APP_ENV: prod", "APP_ENVIRONMENT: prod", "sets APP_ENVIRONMENT, which nothing reads"),
        (WORKER, "HEARTBEAT_FILE=", "HEARTBEAT=", "sets HEARTBEAT, which nothing reads"),
        (COMPOSE, r"\$\{FLOWER_PORT", "${FLOWERS_PORT", "reads FLOWERS_PORT, which is not in .env.example"),
        (COMPOSE, "image: promptwire-api:", "image: promptwire-app:", "is not what its Dockerfile makes"),
        (COMPOSE, "@postgres:5432", "@database:5432", "names database, which is no service"),
        (COMPOSE, "5432/promptwire", "5432/prompts", "the database differs"),
        (COMPOSE, "POSTGRES_USER: promptwire", "POSTGRES_USER: app", "its user differs"),
        (COMPOSE, r"networks: \[queue\]", "networks: [queues]", "network queues is not there"),
        (COMPOSE, r"networks: \[out, database, queue\]", "networks: [out, queue]", "no network with postgres"),
        (API, r'"api\.wsgi:app"', '"api.server:app"', "api/server.py is not there"),
        (WORKER, r'"worker\.app"', '"worker.main"', "worker/main.py is not there"),
        (WORKER, "COPY worker worker\n", "", "worker/app.py is not there or not in the image"),
        (API, "COPY infra/__init__.py infra/gunicorn.conf.py infra/\n", "", "infra/gunicorn.conf.py is not there"),
        (COMPOSE, r"\[alembic,", "[alembik,", "alembik is not in requirements.txt"),
        (".dockerignore", "!shared\n", "", "copies shared, which .dockerignore leaves out"),
        (CI, "make check-infra", "make check-infrastructure", "no target check-infrastructure"),
        # ports
        (API, "EXPOSE 8000", "EXPOSE 8080", "the API's port differs: 8000 in gunicorn.conf.py"),
        (API, "PORT=8000", "PORT=8001", "the API's port differs"),
        (API, "127.0.0.1:8000/livez", "127.0.0.1:80/livez", "the API's port differs"),
        ("infra/gunicorn.conf.py", r"'8000'\)|\"8000\"\)", '"8001")', "the API's port differs"),
        (COMPOSE, ":8000:8000|:-8000}:8000", ":-8000}:8080", "the API's port differs"),
        (COMPOSE, "--port=5555", "--port=5556", "Flower's port differs"),
        (COMPOSE, "port 6379", "port 6380", "Redis's port differs"),
        (COMPOSE, 'CELERY_BROKER_URL: (.*):6379', r"CELERY_BROKER_URL: \1:6378", "Redis's port differs"),
        (COMPOSE, '-p, "5432"', '-p, "5433"', "PostgreSQL's port differs"),
        # secrets
        (COMPOSE, r"JWT_SECRET_KEY: \$\{.*\}", "JWT_SECRET_KEY: k3Yn8k3Yn8", "JWT_SECRET_KEY is written out"),
        (COMPOSE, r"POSTGRES_PASSWORD: \$.*", "POSTGRES_PASSWORD: hunter2", "POSTGRES_PASSWORD is written out"),
        (COMPOSE, r"admin:\$\{.*\}", "admin:hunter2", "FLOWER_BASIC_AUTH is written out"),
        (COMPOSE, r"promptwire:\$\{.*\}@", "promptwire:hunter2@", "looks like a secret"),
        (WORKER, "ENV APP_ENV=prod", "ENV APP_ENV=prod JWT_SECRET_KEY=k", "sets JWT_SECRET_KEY, which would"),
        (API, 'ARG MINILM=""', 'ARG INDEX_TOKEN=""', "sets INDEX_TOKEN, which would stay"),
        (CI, "permissions: {}", "env: {K: AKIAABCDEFGHIJKLMNOP}", "looks like a secret: AKIAABCD"),
        # what is exposed, and rights
        (COMPOSE, r"networks: \[queue\]", 'networks: [queue]\n    ports: ["6379"]', "redis has a published port"),
        (COMPOSE, r"database: \{internal: true\}", "database: {}", "a network that is not internal"),
        (COMPOSE, r"\$\{HOST:-127.0.0.1\}", "${HOST:-0.0.0.0}", "published to everybody"),
        (COMPOSE, "  worker:\n", "  worker:\n    container_name: worker\n", "worker has a fixed name"),
        (COMPOSE, "  read_only: true", "  read_only: false", "api lacks read_only"),
        (COMPOSE, "stop_grace_period: 20s", "stop_grace_period: 5s", "before its graceful_timeout"),
        (COMPOSE, "pgvector:0.8.6-pg18-bookworm", "pgvector:pg18", "is not pinned to a version"),
        (WORKER, "USER 10001:10001", "USER promptwire", "USER is not a number"),
        (API, r'CMD \["gunicorn", (.*)\]', r"CMD gunicorn \1", "not in exec form"),
        (WORKER, "^HEALTHCHECK .*$", "", "Dockerfile.worker has no HEALTHCHECK"),
        (WORKER, "--require-hashes", "", "differ in more than their last stage"),
    ],
)  # fmt: skip
def test_what_is_broken_is_found(copy: Path, file: str, pattern: str, replacement: str, says: str) -> None:
    change(copy / file, pattern, replacement)
    assert any(says in finding for finding in findings(copy)), findings(copy)


class TestVariables:
    def test_compose_reads_them_so(self) -> None:
        text = "${A} ${B:-b} ${C:-${A}} ${D:-${E:-e}} $$A"
        assert interpolate(text, {"A": "a", "D": "d"}) == "a b a d $A"

    def test_without_the_secret_nothing_starts(self) -> None:
        with pytest.raises(MissingVariableError, match="JWT_SECRET_KEY: set it in"):
            read_compose(ROOT / COMPOSE, {})


def found_by(name: str, root: Path) -> str:
    """What this program finds there."""
    check = next(check for check in checks() if check.name == name)
    try:
        return check.run(root)
    except CannotCheckError as error:
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
def test_what_is_broken_is_found_by(
    copy: Path, name: str, file: str, pattern: str, replacement: str, says: str
) -> None:
    assert found_by(name, copy) == ""
    change(copy / file, pattern, replacement)
    assert says in found_by(name, copy)


def test_a_tool_that_is_not_there_is_not_passed_over(copy: Path) -> None:
    with pytest.raises(CannotCheckError, match="no-such-tool"):
        Check("any", ["no-such-tool"]).run(copy)


@pytest.mark.parametrize("arguments", [[], ["--if-possible"]])
def test_it_fails_unless_told_where_a_tool_cannot_be_had(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "infra.checks", "--tools", "/nowhere", *arguments]
    result = subprocess.run(command, cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert "NOT CHECKED  Terraform: format" in result.stdout
    assert result.returncode == (0 if arguments else 1), result.stdout
