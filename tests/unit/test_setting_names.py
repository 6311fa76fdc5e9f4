"""Names that look like settings: mistyped ones are refused, those of platforms and other programs are not."""

import pytest
from flower.options import default_options

from shared.settings import FlowerSettings, Settings, load_settings
from shared.settings.names import find_mistakes

SETTINGS = [name.upper() for name in (*Settings.model_fields, *FlowerSettings.model_fields)]

# What platforms set in every process: CI, Kubernetes, ECS, Heroku and its kind, editors, languages.
PLATFORMS = """
    HOME HOST HOSTNAME USER USERNAME LOGNAME SHELL LANG TERM PATH PWD PORT PORTS PROTO TAG OTEL PUBLIC_IP PRIVATE_IP
    APP_NAME APP_ID APP_VERSION APP_URL APP_PORT APP_ROOT API_URL API_KEY API_PORT API_TOKEN API_VERSION API_HOST
    DATABASE_NAME DATABASE_HOST DATABASE_USER DATABASE_PORT DATABASE_USERNAME DATABASE_PUBLIC_URL DATABASE_PRIVATE_URL
    DATABASE_URL_UNPOOLED DATABASE_CONNECTION_POOL_URL POSTGRES_USER POSTGRES_DB POSTGRES_HOST POSTGRES_URL PGHOST
    PGPASSWORD PGDATABASE REDIS_HOST REDIS_PORT REDIS_TLS_URL REDISHOST REDISCLOUD_URL REDIS_PORT_6379_TCP
    REDIS_SERVICE_HOST API_SERVICE_PORT FLOWER_SERVICE_HOST WORKER_SERVICE_PORT POSTGRES_PORT_5432_TCP_ADDR
    KUBERNETES_SERVICE_HOST KUBERNETES_PORT_443_TCP_PROTO POD_NAME POD_NAMESPACE NODE_NAME
    OPENAI_ORGANIZATION OPENAI_ORG_ID OPENAI_PROJECT OPENAI_API_BASE OPENAI_API_TYPE OPENAI_API_VERSION
    AWS_REGION AWS_DEFAULT_REGION AWS_EXECUTION_ENV ECS_CONTAINER_METADATA_URI_V4 AWS_SECRET_ACCESS_KEY
    OTEL_EXPORTER_OTLP_HEADERS OTEL_EXPORTER_OTLP_TRACES_ENDPOINT OTEL_SERVICE_NAME
    FLOWER_BASIC_AUTH FLOWER_URL_PREFIX FLOWER_PERSISTENT CELERY_BROKER_URL NEW_PASSWORD PROMPTWIRE_URL
    WEB_CONCURRENCY GUNICORN_CMD_ARGS LOG_FORMATTER LOG_DIR LOG_FILE WORKER_CLASS WORKER_ID WORKER_PORT
    SECRET_KEY SECRET_KEY_BASE JWT_SECRET JWT_ALGORITHM METRICS_PORT METRICS_PATH PROMPT PROMPT_COMMAND
    CI GITHUB_ACTIONS GITHUB_TOKEN GITHUB_REF GITLAB_USER_LOGIN RUNNER_TEMP VSCODE_IPC_HOOK GENERATE MAX_MEMORY
    PYTHONPATH PYTHONUNBUFFERED VIRTUAL_ENV PIP_INDEX_URL REMAP_SIGTERM PROMETHEUS_MULTIPROC_DIR MAX_CONNECTIONS
    HTTP_PROXY HTTPS_PROXY NO_PROXY SSL_CERT_FILE SSL_CERT_DIR USER_AGENT DATA_DIR PG_BIN VALKEY_SERVER MINILM
""".split()  # noqa: SIM905

MISTYPED = {
    "GENERATR": "GENERATOR",
    "GENERATER": "GENERATOR",
    "EMBEDER": "EMBEDDER",
    "OPENAI_MODLE": "OPENAI_MODEL",
    "OPENAI_APIKEY": "OPENAI_API_KEY",
    "LEASE_SECOND": "LEASE_SECONDS",
    "lease_second": "LEASE_SECONDS",
    "LISTEN_ADRESS": "LISTEN_ADDRESS",
    "DATABASEURL": "DATABASE_URL",
    "REDIS_URI": "REDIS_URL",
    "LOGLEVEL": "LOG_LEVEL",
    "ALLOWED_ORIGIN": "ALLOWED_ORIGINS",
    "MAX_ATTEMPT": "MAX_ATTEMPTS",
    "WORKER_THREAD": "WORKER_THREADS",
    "POSTGRES_PASWORD": "POSTGRES_PASSWORD",
    "FLOWER_PASWORD": "FLOWER_PASSWORD",
    "FLOWER_PROT": "FLOWER_PORT",
}


def test_names_of_platforms_are_left_alone() -> None:
    assert list(find_mistakes(SETTINGS, PLATFORMS, [])) == []


def test_options_of_flower_are_left_alone() -> None:
    options = [f"FLOWER_{name.upper().replace('-', '_')}" for name in default_options]
    assert "FLOWER_MAX_TASKS" in options
    assert list(find_mistakes(SETTINGS, options, options)) == []


def test_an_empty_variable_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GENERATR", "DATABASE_URL"):  # with DATABASE_URL, empty as it is, DATABASE_URI is another program's
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("DATABASE_URI", "x")
    load_settings(database_url="postgresql://", redis_url="redis://", jwt_secret_key="x")


@pytest.mark.parametrize(("name", "setting"), MISTYPED.items())
def test_a_mistyped_name_is_refused_with_the_right_one(name: str, setting: str) -> None:
    for environment, dotenv in (([name], []), ([], [name])):
        (sentence,) = find_mistakes(SETTINGS, environment, dotenv)
        assert sentence.startswith(f"{name.upper()} is not a setting; is it {setting}? ")


def test_a_similar_name_beside_the_setting_itself_is_left_alone() -> None:
    assert list(find_mistakes(SETTINGS, ["LOGLEVEL", "LOG_LEVEL"], [])) == []
    assert list(find_mistakes(SETTINGS, ["LOGLEVEL"], ["LOG_LEVEL"])) == []


@pytest.mark.parametrize(
    "name", ["OPENAI_TIMEOUT", "OPENAI_ORG_ID", "WORKER_COUNT", "USER_LIMIT", "DATABASE_NAME", "JWT_SECRET", "LOG_FILE"]
)
def test_a_name_like_a_group_of_settings_is_refused_in_a_dotenv_file_only(name: str) -> None:
    (sentence,) = find_mistakes(SETTINGS, [], [name])
    assert sentence.startswith(f"{name} in .env is not a setting")
    assert list(find_mistakes(SETTINGS, [name], [])) == []


def test_the_old_name_of_a_setting_is_refused_in_a_dotenv_file_only() -> None:
    assert list(find_mistakes(SETTINGS, [], ["HOST"])) == ["HOST in .env is now LISTEN_ADDRESS: rename it."]
    assert list(find_mistakes(SETTINGS, ["HOST"], [])) == []


@pytest.mark.parametrize("name", ["MY_KEY", "HF_TOKEN", "COMPOSE_PROJECT_NAME", "POSTGRES_PASSWORD", "FLOWER_PASSWORD"])
def test_other_names_may_stand_in_a_dotenv_file(name: str) -> None:
    assert list(find_mistakes(SETTINGS, [], [name])) == []
