"""The settings: what production refuses, and that each of them is documented."""

import re
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from pydantic.fields import FieldInfo

from shared.settings import FlowerSettings, Settings, SettingsError, load_settings
from shared.settings.names import OTHER_NAMES
from tests.support.servers import ROOT

GUIDE = ROOT / "docs" / "settings.md"
GOOD = {
    "APP_ENV": "prod",
    "DATABASE_URL": "postgresql://u:p@h/d",
    "REDIS_URL": "redis://h/0",
    "JWT_SECRET_KEY": "k3Yn8" * 10,
}


def types_of(field: FieldInfo) -> set[object]:
    return {field.annotation, *get_args(field.annotation)}


def limit_of(field: FieldInfo, name: str) -> float:
    return next(limit for part in field.metadata if (limit := getattr(part, name, None)) is not None)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """Sets the environment to exactly these, far from any .env."""
    monkeypatch.chdir(tmp_path)

    def given(**changes: str) -> None:
        for name, value in (GOOD | changes).items():
            monkeypatch.setenv(name, value)

    return given


def test_good_ones_are_read(environment) -> None:
    environment(ALLOWED_ORIGINS="https://a.example/, https://b.example", LEASE_SECONDS="2.5")
    settings = load_settings()
    assert settings.allowed_origins == ("https://a.example", "https://b.example")
    assert settings.lease.total_seconds() == 2.5
    assert not settings.registration_open


def test_they_are_read_from_a_dotenv_file(environment, tmp_path) -> None:
    environment()
    (tmp_path / ".env").write_text("MAX_ATTEMPTS=7\nMY_OWN=1\nREGISTRATION=\n")
    assert load_settings().max_attempts == 7


def test_a_password_apart_from_its_url_may_have_any_character(environment) -> None:
    environment(
        DATABASE_URL="postgresql://u@h/d", DATABASE_PASSWORD="a/b@c:d", REDIS_URL="redis://h/0", REDIS_PASSWORD="e/f@g"
    )
    settings = load_settings()
    assert settings.database_url.get_secret_value() == "postgresql://u:a%2Fb%40c%3Ad@h/d"
    assert settings.redis_url.get_secret_value() == "redis://:e%2Ff%40g@h/0"


def test_they_cannot_be_changed(environment) -> None:
    environment()
    with pytest.raises(Exception, match="frozen"):
        load_settings().max_attempts = 1  # type: ignore[misc]


def test_secrets_do_not_show() -> None:
    settings = Settings(_env_file=None, **{name.lower(): value for name, value in GOOD.items()})
    assert not any(secret in repr(settings) for secret in (GOOD["JWT_SECRET_KEY"], "u:p"))


NUMBERS = {name: field for name, field in Settings.model_fields.items() if {int, float} & types_of(field)}


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "1e300", "9" * 400, "two", "1,5", "0x10"])
def test_every_number_has_limits(environment, value: str) -> None:
    environment(**dict.fromkeys(map(str.upper, NUMBERS), value))
    with pytest.raises(SettingsError) as refused:
        load_settings()
    said = str(refused.value).splitlines()
    assert sorted(sentence.split()[0] for sentence in said) == sorted(map(str.upper, NUMBERS))
    assert all(re.fullmatch(r"[A-Z_]+ must be a (whole )?number from [\d.]+ to \d+\.", sentence) for sentence in said)


def test_the_limits_themselves_are_allowed_and_overflow_nothing(environment) -> None:
    for limit in ("ge", "le"):
        numbers = {name.upper(): limit_of(field, limit) for name, field in NUMBERS.items()}
        environment(**{name: str(value) for name, value in numbers.items()} | {"PORT": "8000"})
        settings = load_settings()
        datetime.now(UTC) - timedelta(days=settings.feed_retention_days)
        datetime.now(UTC) + timedelta(days=settings.refresh_token_days, minutes=settings.access_token_minutes)
        assert settings.lease + settings.submit_grace + settings.provider_patience > timedelta()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("JWT_SECRET_KEY", "short", "JWT_SECRET_KEY is weak"),
        ("JWT_SECRET_KEY", "change-me-change-me-change-me-change-me", "JWT_SECRET_KEY is weak"),
        ("JWT_SECRET_KEY", "", "JWT_SECRET_KEY is not set"),
        ("DATABASE_URL", "", "DATABASE_URL is not set"),
        ("REDIS_URL", "", "REDIS_URL is not set"),
        ("DATABASE_URL", "garbage", "DATABASE_URL: this is not a PostgreSQL URL"),
        ("DATABASE_URL", "mysql://u:hush@h/d", "DATABASE_URL: this is not a PostgreSQL URL"),
        ("DATABASE_URL", "postgresql://u:hush@h:port/d", "DATABASE_URL: this is not a PostgreSQL URL"),
        ("REDIS_URL", "localhost:6379", "REDIS_URL: this is not a Redis URL"),
        ("REDIS_URL", "redis://:hush@h:port/0", "REDIS_URL: this is not a Redis URL"),
        ("WS_ROOM_AUTH", "open", "WS_ROOM_AUTH=open lets anyone"),
        ("WS_ROOM_AUTH", "maybe", "WS_ROOM_AUTH must be token or open."),
        ("ALLOWED_ORIGINS", "*", "ALLOWED_ORIGINS=* lets any web page"),
        ("PROMPT_RATE_LIMIT", "often", "PROMPT_RATE_LIMIT: 'often' is not a valid rate limit"),
        ("OIDC_ISSUER", "login.example.com", "OIDC_ISSUER: this is not a URL"),
        (
            "OIDC_ISSUER",
            "https://login.example.com/?tenant=1",
            "OIDC_ISSUER: an issuer has no user, query or fragment.",
        ),
        ("OIDC_ISSUER", "https://login.example.com", "OIDC_ISSUER needs OIDC_CLIENT_ID"),
        ("OIDC_SCOPES", "profile email", "OIDC_SCOPES: openid must be one of them"),
        ("OIDC_CREATE_ACCOUNTS", "some", "OIDC_CREATE_ACCOUNTS must be true or false."),
        ("REGISTRATION", "perhaps", "REGISTRATION must be true or false."),
        ("LEASE_SECONDS", "0", "LEASE_SECONDS must be a number from 0.1 to 86400."),
        ("MAX_ATTEMPTS", "many", "MAX_ATTEMPTS must be a whole number from 1 to 1000."),
        ("USER_RUNNING_LIMIT", "0", "USER_RUNNING_LIMIT must be a whole number from 1 to 1000000000."),
        ("LISTEN_ADDRESS", "myhost", "LISTEN_ADDRESS: 'myhost' is not an IP address; write 127.0.0.1"),
        ("LISTEN_ADDRESS", "localhost", "LISTEN_ADDRESS: 'localhost' is not an IP address"),
        ("LISTEN_ADDRESS", "127.0.0.1:8000", "is not an IP address"),
        (
            "PUBLIC_URL",
            "prompts.example.com",
            "PUBLIC_URL: this is not the URL of a website; write it like https://prompts",
        ),
        ("FLOWER_URL", "http://", "FLOWER_URL: this is not a URL"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "OTEL_EXPORTER_OTLP_ENDPOINT: this is not a URL"),
        ("OPENAI_BASE_URL", "localhost:11434/v1", "OPENAI_BASE_URL: this is not a URL"),
        ("OPENAI_BASE_URL", "ftp://me:hush@host/v1", "OPENAI_BASE_URL: this is not a URL"),
        ("OPENAI_BASE_URL", "https://me:hush@host:99999/v1", "OPENAI_BASE_URL: this is not a URL"),
        ("OPENAI_EMBEDDING_BASE_URL", "https://a b/v1", "OPENAI_EMBEDDING_BASE_URL: this is not a URL"),
        ("ALLOWED_ORIGINS", "app.example.com", "ALLOWED_ORIGINS: not all of these are origins; write them like"),
        ("ALLOWED_ORIGINS", "*, https://me:hush@a.example", "ALLOWED_ORIGINS: not all of these are origins"),
        ("REDIS_URL", "redis://:hush@h/first", "REDIS_URL: this is not a Redis URL"),
        ("REDIS_URL", "redis://:hush@h:99999/0", "REDIS_URL: this is not a Redis URL"),
        ("REDIS_URL", "redis://:hush@hush@h/0", "REDIS_URL: this is not a Redis URL"),
        ("DATABASE_URL", "postgresql://u:hush@hush@h/d", "DATABASE_URL: this is not a PostgreSQL URL"),
        ("DATABASE_URL", "postgresql://u:hush@h:99999/d", "DATABASE_URL: this is not a PostgreSQL URL"),
        ("DATABASE_URL", "postgresql://u:hush@a:1,b:99999/d", "DATABASE_URL: this is not a PostgreSQL URL"),
        ("DATABASE_URL", "postgresql://u:hush@h/d?sslmod=require", 'invalid connection option "sslmod"'),
        ("SIMULATED_DELAY", "300", "SIMULATED_DELAY must be less than GENERATION_TIMEOUT_SECONDS (300)"),
        ("DATABASE_URL", "postgresql://u:PASSWORD@h/d", "DATABASE_URL: its password is still PASSWORD"),
        ("REDIS_URL", "redis://:PASSWORD@h/0", "REDIS_URL: its password is still PASSWORD"),
        ("PROMPT_RATE_LIMIT", "0/second", "PROMPT_RATE_LIMIT: '0/second' is not a valid rate limit"),
        ("PROMPT_RATE_LIMIT", "1 per 99999999 years", "is not a valid rate limit"),
        ("PROMPT_RATE_LIMIT", "99999999999999999999/day", "is not a valid rate limit"),
        ("FLOWER_PORT", "8000", "PORT and FLOWER_PORT are both 8000: set one of them to another port."),
        ("GENERATOR", "simulatd", "GENERATOR='simulatd' is not a known generator. Known: openai, simulated;"),
        ("EMBEDDER", "hashin", "EMBEDDER='hashin' is not a known embedder. Known: hashing, minilm, openai;"),
        ("PREVIOUS_EMBEDDER", "hashin", "PREVIOUS_EMBEDDER='hashin' is not a known embedder."),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence_without_a_secret(
    environment, name: str, value: str, says: str
) -> None:
    environment(**{name: value})
    with pytest.raises(SettingsError, match=re.escape(says)) as refused:
        load_settings()
    assert not any(secret in str(refused.value) for secret in ("hush", GOOD["JWT_SECRET_KEY"]))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("LISTEN_ADDRESS", "::", "::"),
        ("LISTEN_ADDRESS", "[::1]", "::1"),
        ("PUBLIC_URL", "https://example.com/promptwire/", "https://example.com/promptwire"),
        ("OPENAI_BASE_URL", "https://me:p@[::1]:8443/v1?api-version=1", "https://me:p@[::1]:8443/v1?api-version=1"),
        ("ALLOWED_ORIGINS", "tauri://localhost, http://[::1]:3000/", ("tauri://localhost", "http://[::1]:3000")),
        ("GENERATOR", "not.installed:Here", "not.installed:Here"),
        ("FLOWER_PORT", "tcp://10.0.0.7:5555", 5_555),  # Kubernetes' link to a Service named flower
        ("WORKER_METRICS_PORT", "tcp://10.0.0.7:80", 0),
    ],
)
def test_a_value_that_works_is_read(environment, name: str, value: str, read: object) -> None:
    environment(**{name: value})
    assert getattr(load_settings(), name.lower()) == read


def test_a_dotenv_file_that_cannot_be_read_is_one_sentence(environment, tmp_path) -> None:
    environment()
    (tmp_path / ".env").write_bytes(b"OPENAI_MODEL=\xff\n")
    with pytest.raises(SettingsError, match=re.escape(".env cannot be read: it is not UTF-8.")):
        load_settings()


def test_a_mistyped_name_in_a_dotenv_file_is_refused(environment, tmp_path) -> None:
    environment()
    (tmp_path / ".env").write_text("OPENAI_MODLE=m\nHOST=0.0.0.0\n")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert [sentence.split()[0] for sentence in str(refused.value).splitlines()] == ["HOST", "OPENAI_MODLE"]


def test_the_identity_provider_is_reached_by_tls_in_production_and_needs_a_public_url(environment) -> None:
    client = {"OIDC_CLIENT_ID": "promptwire"}
    environment(OIDC_ISSUER="https://login.example.com", **client)
    with pytest.raises(SettingsError, match="OIDC_ISSUER needs PUBLIC_URL"):
        load_settings()
    environment(OIDC_ISSUER="http://login.example.com", PUBLIC_URL="https://p.example.com", **client)
    with pytest.raises(SettingsError, match="OIDC_ISSUER must begin with https://"):
        load_settings()
    environment(OIDC_ISSUER="https://login.example.com", OIDC_ALLOWED_DOMAINS="A.example, b.example")
    assert load_settings().oidc_allowed_domains == ("a.example", "b.example")


@pytest.mark.parametrize(("name", "value"), [("WS_ROOM_AUTH", "open"), ("ALLOWED_ORIGINS", "*")])
def test_development_allows_it(environment, name: str, value: str) -> None:
    environment(APP_ENV="dev", **{name: value})
    load_settings()


class TestDocumentation:
    names = {name.upper() for kind in (Settings, FlowerSettings) for name in kind.model_fields} | OTHER_NAMES

    def test_every_setting_stands_in_the_example(self) -> None:
        lines = (ROOT / ".env.example").read_text().splitlines()
        assert {found[1] for line in lines if (found := re.match(r"#?\s?([A-Z_]+)=", line))} == self.names

    def test_the_guide_lists_every_setting_once(self) -> None:
        listed = re.findall(r"^\| `([A-Z_]+)` \|", GUIDE.read_text(), re.MULTILINE)
        assert sorted(listed) == sorted(self.names)

    def test_the_defaults_in_the_guide_are_the_real_ones(self) -> None:
        rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `([^`]*)` \|", GUIDE.read_text(), re.MULTILINE))
        for name, field in Settings.model_fields.items():
            if name.upper() in rows:
                default = field.default
                if isinstance(default, bool):
                    default = str(default).lower()
                assert rows[name.upper()] == (f"{default:g}" if isinstance(default, float) else str(default)), name
