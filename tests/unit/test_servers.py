"""The servers' programs come from a setting, a wheel or the system; otherwise an error says what to do."""

from pathlib import Path

import pytest

from infra.local import servers
from infra.local.errors import CannotStartError


def test_servers_come_from_wheels_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PG_BIN", raising=False)
    monkeypatch.delenv("VALKEY_SERVER", raising=False)
    assert "site-packages" in str(servers.postgres_bin())
    assert "site-packages" in str(servers.valkey_server())


def test_a_setting_overrides_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "postgres"
    program.touch(mode=0o755)
    monkeypatch.setenv("PG_BIN", str(tmp_path))
    assert servers.postgres_bin() == tmp_path
    monkeypatch.setenv("VALKEY_SERVER", str(program))
    assert servers.valkey_server() == program


def test_a_missing_server_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a platform without a wheel."""
    monkeypatch.delenv("PG_BIN", raising=False)
    monkeypatch.setattr(servers, "find_spec", lambda _: None)
    monkeypatch.setattr(servers, "SYSTEM_POSTGRES", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CannotStartError, match=r"There is no PostgreSQL for .* set PG_BIN .*DATABASE_URL"):
        servers.postgres_bin()
