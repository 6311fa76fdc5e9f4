"""The command line as a whole: help, examples, completion, and a command for each call of the API."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from api.client.__main__ import main
from api.client.examples import _EXAMPLES
from api.client.file_commands import write
from api.client.options import Exit
from tests.support.servers import MAX_WAIT_SECONDS, ROOT
from tests.support.stub_api import Answer, StubApi

KEY = f"pw_{'a' * 43}"


def commands(group: click.Group = main, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield all commands and groups with their names, such as `keys` and `keys create`."""
    for name, command in group.commands.items():
        yield prefix + name, command
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")


COMMANDS = dict(commands())
LEAVES = [name for name, command in COMMANDS.items() if not isinstance(command, click.Group)]


def invoke(*arguments: str, url: str = "http://127.0.0.1:9", **options: Any) -> Result:
    environment = {"PROMPTWIRE_API_KEY": KEY, "PROMPTWIRE_URL": url, "PROMPTWIRE_PASSWORD": "a password"}
    environment |= {"PROMPTWIRE_NEW_PASSWORD": "another one"}
    return CliRunner().invoke(main, arguments, env=environment, **options)


class TestHelp:
    @pytest.mark.parametrize("name", LEAVES)
    def test_every_command_has_an_example_that_it_accepts(
        self, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for file in ("requests.jsonl", "alice.json"):
            (tmp_path / file).write_text("{}")
        monkeypatch.setattr(COMMANDS[name], "callback", lambda **_: click.echo("was called"))
        for example in _EXAMPLES[name]:
            arguments = shlex.split(re.sub(r" [<>] .*", "", example))[1:]
            assert arguments[: len(name.split())] == name.split()
            result = invoke(*arguments)
            assert result.output == "was called\n", example
            assert example in invoke(*name.split(), "--help").output

    def test_every_example_belongs_to_a_command(self) -> None:
        assert _EXAMPLES.keys() == set(LEAVES)

    def test_the_manual_lists_what_the_commands_read_and_return(self) -> None:
        manual = invoke("help").output
        assert manual == invoke("--help").output
        source = "".join(path.read_text() for path in (ROOT / "api" / "client").glob("*.py") if "help" not in path.name)
        assert set(re.findall(r"^    (PROMPTWIRE_\w+)", manual, re.MULTILINE)) == set(
            re.findall(r'"(PROMPTWIRE_\w+)"', source)
        )
        _, _, codes = manual.partition("Exit codes:")
        assert re.findall(r"^    (\d+) ", codes, re.MULTILINE) == [str(int(code)) for code in Exit]

    def test_help_of_a_command_is_its_help_option(self) -> None:
        assert "promptwire batch submit requests.jsonl" in invoke("help", "batch", "submit").output
        assert invoke("help", "batch", "gone").exit_code == Exit.USAGE
        assert invoke("help", "list", "gone").exit_code == Exit.USAGE

    @pytest.mark.parametrize("name", ["", *(name for name in COMMANDS if name not in LEAVES)])
    def test_a_list_of_commands_shows_whole_sentences(self, name: str) -> None:
        _, _, listed = invoke(*name.split(), "--help").output.partition("Commands:")
        assert "..." not in listed

    def test_an_argument_that_is_not_an_integer_is_refused_in_plain_words(self) -> None:
        assert "Error: Invalid value for 'ID': 'abc' is not a valid integer." in invoke("show", "abc").output
        assert "'abc' is not a valid number." in invoke("list", "--timeout", "abc").output

    @pytest.mark.parametrize("name", ["", *COMMANDS])
    def test_every_command_shows_the_version(self, name: str) -> None:
        if name in ("help", "completion"):  # they have no options
            return
        result = invoke(*name.split(), "--version")
        assert (result.exit_code, result.output.split()[:2]) == (Exit.OK, ["promptwire,", "version"])


class TestCompletion:
    @pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
    def test_bash_completes_commands_and_options(self, tmp_path: Path) -> None:
        program = tmp_path / "promptwire"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m api.client "$@"\n')
        program.chmod(0o755)
        script = """
            source <(promptwire completion bash)
            complete -p promptwire
            COMP_WORDS=(promptwire li) COMP_CWORD=1; _promptwire_completion promptwire; echo "${COMPREPLY[@]}"
            COMPREPLY=() COMP_WORDS=(promptwire list --st) COMP_CWORD=2
            _promptwire_completion promptwire; echo "${COMPREPLY[@]}"
        """
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        shell = subprocess.run(
            ["bash", "--norc", "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            timeout=MAX_WAIT_SECONDS,
            check=True,
        )
        registered, words, options = shell.stdout.splitlines()
        assert registered.endswith("-F _promptwire_completion promptwire")
        assert (words.split(), options.split()) == (["list", "listen"], ["--status"])

    @pytest.mark.parametrize("shell", ["zsh", "fish"])
    def test_other_shells_have_scripts_of_their_own(self, shell: str) -> None:
        script = invoke("completion", shell).output
        assert f"_PROMPTWIRE_COMPLETE={shell}_complete" in script


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--url http://a..b", "is not a valid URL"),
        ("--url http://xn--", "is not a valid URL"),
        ("--url http://[::1", "is not a valid URL"),
        ("--url localhost:8000", "is not the URL of a server"),
        ("--url http://alice:secret@127.0.0.1:9", "must not have a password"),
        ("--timeout nan", "is not a number of seconds"),
        *((f"--timeout {seconds}", "is not in the range") for seconds in ("inf", "1e300", "-1")),
    ],
)
def test_an_address_or_a_time_that_cannot_be_is_wrong_usage(arguments: str, says: str) -> None:
    result = invoke("show", "1", *arguments.split())
    assert (result.exit_code, says in result.output, "secret" in result.output) == (Exit.USAGE, True, False)


class TestWriting:
    def test_a_link_stays_a_link(self, tmp_path: Path) -> None:
        target, link = tmp_path / "target", tmp_path / "link"
        target.write_text("old")
        link.symlink_to(target)
        assert write(link, iter([b"new ", b"content"])) == 11
        assert (link.readlink(), target.read_text()) == (target, "new content")

    def test_a_pipe_gets_the_content_and_stays_one(self, tmp_path: Path) -> None:
        """So does /dev/null, which root could otherwise replace."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDWR)  # does not wait for a writer
        try:
            assert write(pipe, iter([b"content"])) == 7
            assert os.read(reader, 100) == b"content"
        finally:
            os.close(reader)
        assert (list(tmp_path.iterdir()), pipe.is_fifo()) == ([pipe], True)


#: A command line for each call; the call is among its requests.
CALLS = {
    "POST /auth/register/": "register alice",
    "POST /login/": "login alice",
    "POST /auth/keys/": "keys create k",
    "GET /auth/keys/": "keys list",
    "DELETE /auth/keys/{id}/": "keys revoke 1",
    "GET /account/": "account show",
    "POST /account/password/": "account password",
    "GET /account/logins/": "account logins",
    "DELETE /account/logins/{id}/": "account logins --end 00000000-0000-0000-0000-000000000001",
    "GET /account/export/": "export",
    "DELETE /account/": "account delete --yes",
    "POST /prompts/": "submit Hi",
    "GET /prompts/": "list",
    "GET /prompts/{id}/": "show 1",
    "GET /prompts/{id}/stream/": "show 1 --follow",
    "POST /prompts/{id}/cancel/": "cancel 1",
    "POST /prompts/{id}/retry/": "retry 1",
    "DELETE /prompts/{id}/": "delete 1",
    "GET /prompts/similar/": "search Hi --mode text",
    "GET /v1/models": "models",
    "POST /v1/files": "batch submit requests.jsonl",
    "GET /v1/files": "files list",
    "GET /v1/files/{id}/content": "files download 1 file",
    "DELETE /v1/files/{id}": "files delete 1",
    "POST /v1/batches": "batch submit requests.jsonl",
    "GET /v1/batches": "batch list",
    "GET /v1/batches/{id}": "batch show 1",
    "POST /v1/batches/{id}/cancel": "batch cancel 1",
    "GET /usage/": "usage",
    "POST /webhooks/": "webhooks create https://example.com/hook",
    "GET /webhooks/": "webhooks list",
    "GET /webhooks/{id}/": "webhooks show 1",
    "PATCH /webhooks/{id}/": "webhooks update 1 --disable",
    "DELETE /webhooks/{id}/": "webhooks delete 1",
    "POST /webhooks/{id}/rotate/": "webhooks rotate 1",
    "POST /webhooks/{id}/test/": "webhooks test 1",
    "GET /webhooks/{id}/deliveries/": "webhooks deliveries 1",
    "POST /webhooks/{id}/deliveries/{id}/replay/": "webhooks replay 1 1",
    "POST /webhooks/{id}/recover/": "webhooks recover 1 --since 1",
    "GET /admin/queue/": "admin overview",
    "GET /admin/failures/": "admin failures",
    "GET /admin/workers/": "admin workers",
    "GET /admin/models/": "admin models",
    "POST /admin/models/{model}/pause/": "admin pause 1",
    "POST /admin/models/{model}/resume/": "admin resume 1",
    "POST /admin/operations/": "admin retry --dry-run",
    "GET /admin/operations/": "admin operations",
    "GET /admin/operations/{id}/": "admin operation 1",
    "POST /admin/operations/{id}/undo/": "admin undo 1",
    "GET /admin/users/": "admin users",
    "GET /admin/keys/": "admin keys",
    "DELETE /admin/keys/{id}/": "admin keys --revoke 1",
    "GET /admin/usage/": "admin usage",
    "GET /admin/audit/": "admin audit",
}
#: Not by a request of the stub: `listen` opens a socket, and only a login can be ended.
ELSEWHERE = {"WS /ws/prompts/{username}/", "POST /auth/logout/"}


class TestCalls:
    def test_every_call_of_the_api_has_a_command_or_a_reason(self) -> None:
        documented = re.findall(r"^\| `((?:[A-Z]+) /[^`]*)` \|", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
        guide = (ROOT / "docs" / "client.md").read_text()
        _, _, without = guide.partition("## Calls without a command\n")
        listed = re.findall(r"`(/[^`]*)`", without.partition("\n## ")[0])
        missing = set(documented) - CALLS.keys() - ELSEWHERE
        unexplained = [call for call in missing if not any(_is_below(call.partition(" ")[2], path) for path in listed)]
        assert unexplained == []

    @pytest.mark.parametrize("call", CALLS)
    def test_the_command_makes_the_call(
        self, stub: StubApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "requests.jsonl").write_text("{}\n")
        first = {"id": 1, "bytes": 3, "username": "alice", "limits": {}, "status": "queued", "url": stub.url}
        method, _, path = call.partition(" ")
        is_second = call in ("POST /v1/batches", "DELETE /account/", "GET /prompts/{id}/stream/")
        stub.answers = [
            *([Answer(200, first)] if is_second else []),
            Answer(404, {"detail": "There is no such thing."}),
        ]
        result = invoke(*CALLS[call].split(), url=stub.url)
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))
        assert [
            each for each in stub.requests if each.method == method and re.fullmatch(pattern, each.path.split("?")[0])
        ]
        assert "There is no such thing." in str(result.exception)


def _is_below(path: str, listed: str) -> bool:
    return path == listed or (
        listed not in ("/", "/admin/") and "{" not in listed and path.startswith(f"{listed.rstrip('/')}/")
    )
