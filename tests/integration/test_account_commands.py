"""`promptwire account`: the commands of one's account, as processes."""

import json
from pathlib import Path

import pytest

from api.client.options import Exit
from tests.support.client import PASSWORD
from tests.support.command_line import CommandLine
from tests.support.processes import RemoteUser

NEW_PASSWORD = "battery staple, correct"


@pytest.fixture
def alice(app_url: str) -> RemoteUser:
    return RemoteUser(app_url, "alice")


@pytest.fixture
def shell(app_url: str, alice: RemoteUser, tmp_path: Path) -> CommandLine:
    """A command line on which alice is logged in."""
    made = CommandLine(app_url, tmp_path)
    made.log_in_as(alice)
    return made


def test_show_prints_the_account_and_its_limits(shell: CommandLine) -> None:
    assert shell.json("account", "show")[0]["username"] == "alice"
    lines = shell.run("account", "show").stdout.splitlines()
    assert lines[0].startswith("alice (id 1), since 20")
    assert "user_backlog_limit      1000" in lines
    assert "user_running_limit      none" in lines


def test_show_prints_what_the_api_key_may_do_that_one_uses(shell: CommandLine) -> None:
    made = shell.json("keys", "create", "small", "--scope", "prompts:read", "--monthly-tokens", "60")[0]
    lines = shell.run("account", "show", PROMPTWIRE_API_KEY=made["key"]).stdout.splitlines()
    own = lines[lines.index(f"with API key {made['id']}: prompts:read") + 2 :]
    assert [line.split() for line in own] == [["models", "all"], ["rate_limit", "none"], ["monthly_tokens", "60"]]


def test_password_changes_the_password_and_never_takes_one_as_an_argument(
    shell: CommandLine, alice: RemoteUser
) -> None:
    result = shell.run("account", "password", stdin=f"a wrong one\n{NEW_PASSWORD}\n")
    assert (result.returncode, "The password is wrong." in result.stderr) == (Exit.REFUSED, True)
    result = shell.run("account", "password", stdin=f"{PASSWORD}\n{NEW_PASSWORD}\n")
    assert (result.returncode, result.stdout) == (Exit.OK, "")
    assert shell.run("list").returncode == Exit.OK
    body = {"username": "alice", "password": NEW_PASSWORD}
    assert alice.http.post("/login/", json=body).status_code == 200
    assert shell.run("account", "password", PASSWORD).returncode == Exit.USAGE


def test_the_passwords_may_come_from_files_and_from_the_environment(shell: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "new"
    file.write_text(f"{NEW_PASSWORD}\n")
    arguments = ("account", "password", "--new-password-file", str(file))
    assert shell.run(*arguments, PROMPTWIRE_PASSWORD=PASSWORD).returncode == Exit.OK
    again = {"PROMPTWIRE_PASSWORD": NEW_PASSWORD, "PROMPTWIRE_NEW_PASSWORD": PASSWORD}
    assert shell.run("account", "password", **again).returncode == Exit.OK


def test_logins_lists_logins_and_ends_one(shell: CommandLine, app_url: str) -> None:
    other = RemoteUser(app_url, "alice", is_new=False)
    listed = shell.run("account", "logins").stdout.splitlines()
    assert listed[0].split() == ["ID", "LAST", "USED", "ADDRESS", "PROGRAM"]
    assert ["(this one)" in line for line in listed[1:]] == [False, True]
    (ended,) = [each["id"] for each in shell.json("account", "logins") if not each["is_current"]]
    assert shell.run("account", "logins", "--end", ended).returncode == Exit.OK
    assert other.http.get("/prompts/").status_code == 401
    assert shell.run("account", "logins", "--end", ended).returncode == Exit.REFUSED


def test_export_writes_every_prompt_as_a_line_of_json(shell: CommandLine, alice: RemoteUser, tmp_path: Path) -> None:
    ids = [alice.submit(f"What is\u2028a tide {i}?") for i in range(3)]
    result = shell.run("account", "export")
    assert [json.loads(line)["id"] for line in result.stdout.split("\n")[:-1]] == ids
    file = tmp_path / "prompts.jsonl"
    shell.run("account", "export", "--output", str(file))
    assert file.read_text() == result.stdout


def test_delete_asks_and_deletes_the_account_and_the_login_here(shell: CommandLine, alice: RemoteUser) -> None:
    assert shell.run("account", "delete", stdin=f"n\n{PASSWORD}\n").returncode == Exit.INTERRUPTED
    assert shell.run("account", "delete", "--yes", stdin="a wrong one\n").returncode == Exit.REFUSED
    assert alice.http.get("/prompts/").status_code == 200
    result = shell.run("account", "delete", "--yes", stdin=f"{PASSWORD}\n")
    assert (result.returncode, result.stdout, result.stderr) == (Exit.OK, "", "The account alice was deleted.\n")
    assert alice.http.get("/prompts/").status_code == 401
    assert shell.run("list").returncode == Exit.NOT_LOGGED_IN
    assert shell.login_file.read() is None
