"""The settings: what production refuses, and that each of them is documented."""

import re

import pytest

from shared.settings import Settings, SettingsError, load_settings
from tests.support.servers import ROOT

GUIDE = ROOT / "docs" / "settings.md"
GOOD = {
    "APP_ENV": "prod",
    "DATABASE_URL": "postgresql://u:p@h/d",
    "REDIS_URL": "redis://h/0",
    "JWT_SECRET_KEY": "k3Yn8" * 10,
}
# What `make up`, gunicorn and Flower read beside the application's settings.
LOCAL = {"PORT", "FLOWER_PORT", "FLOWER_PASSWORD", "DATA_DIR", "API_PROCESSES", "PG_BIN", "VALKEY_SERVER"}
# What only docker-compose.yml reads.
COMPOSE = {"POSTGRES_PASSWORD", "MINILM", "OTEL", "TAG"}


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
    (tmp_path / ".env").write_text("MAX_ATTEMPTS=7\nUNKNOWN=1\nREGISTRATION=\n")
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


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("JWT_SECRET_KEY", "short", "JWT_SECRET_KEY is weak"),
        ("JWT_SECRET_KEY", "change-me-change-me-change-me-change-me", "JWT_SECRET_KEY is weak"),
        ("JWT_SECRET_KEY", "", "JWT_SECRET_KEY is not set"),
        ("DATABASE_URL", "", "DATABASE_URL is not set"),
        ("REDIS_URL", "", "REDIS_URL is not set"),
        ("DATABASE_URL", "garbage", "DATABASE_URL: this is not a PostgreSQL URL"),
        ("DATABASE_URL", "mysql://u:secret@h/d", "DATABASE_URL: this is not a PostgreSQL URL"),
        ("DATABASE_URL", "postgresql://u:secret@h:port/d", "DATABASE_URL: this is not a PostgreSQL URL"),
        ("REDIS_URL", "localhost:6379", "REDIS_URL: this is not a Redis URL"),
        ("REDIS_URL", "redis://:secret@h:port/0", "REDIS_URL: this is not a Redis URL"),
        ("WS_ROOM_AUTH", "open", "WS_ROOM_AUTH=open lets anyone"),
        ("WS_ROOM_AUTH", "maybe", "WS_ROOM_AUTH: Input should be 'token' or 'open'"),
        ("ALLOWED_ORIGINS", "*", "ALLOWED_ORIGINS=* lets any web page"),
        ("PROMPT_RATE_LIMIT", "often", "PROMPT_RATE_LIMIT: 'often' is not a valid rate limit"),
        ("LEASE_SECONDS", "0", "LEASE_SECONDS: Input should be greater than 0"),
        ("MAX_ATTEMPTS", "many", "MAX_ATTEMPTS: Input should be a valid integer"),
    ],
)
def test_production_refuses_and_says_which_and_why(environment, name: str, value: str, says: str) -> None:
    environment(**{name: value})
    with pytest.raises(SettingsError, match=re.escape(says)) as refused:
        load_settings()
    if value:
        assert GOOD["JWT_SECRET_KEY"] not in str(refused.value)


@pytest.mark.parametrize(("name", "value"), [("WS_ROOM_AUTH", "open"), ("ALLOWED_ORIGINS", "*")])
def test_development_allows_it(environment, name: str, value: str) -> None:
    environment(APP_ENV="dev", **{name: value})
    load_settings()


class TestDocumentation:
    names = {name.upper() for name in Settings.model_fields} | LOCAL | COMPOSE

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
