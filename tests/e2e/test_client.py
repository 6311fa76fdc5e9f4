"""The client's command line against real API and worker processes."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import jwt
import pytest
from sqlalchemy import text

from api.client import Client, Login, MemoryTokenStore
from api.client.options import Exit
from shared.accounts import users
from shared.settings import Settings
from tests.support import processes
from tests.support.client import PASSWORD
from tests.support.command_line import RETRY_FOREVER, CommandLine, command
from tests.support.processes import RemoteUser, RestartableApi
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, SECRET, Servers, wait_until

#: A prompt that fails and is rescheduled again and again, without blocking a worker.
UNFINISHED = "fail-until /nowhere"


@pytest.fixture(scope="module")
def settings(servers: Servers) -> Iterator[Settings]:
    with servers.database() as name:
        yield servers.settings(
            name,
            generator="tests.support.providers:one_by_one",
            reaper_seconds=0.5,
            max_attempts=100,
            webhook_allow_private=True,
        )


@pytest.fixture(scope="module", autouse=True)
def _worker(settings: Settings) -> Iterator[None]:
    with processes.worker(settings):
        yield


@pytest.fixture(scope="module")
def host(settings: Settings) -> Iterator[RestartableApi]:
    """The API. Tests stop it for a while; to start one for each of them would take longer."""
    running = RestartableApi(settings)
    try:
        yield running
    finally:
        running.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def url(host: RestartableApi) -> str:
    return host.url


@pytest.fixture
def shell(url: str, tmp_path: Path) -> CommandLine:
    """A command line without a login."""
    return CommandLine(url, tmp_path)


@pytest.fixture
def alice(shell: CommandLine) -> RemoteUser:
    """The user who is logged in on the command line."""
    user = RemoteUser(shell.url)
    shell.log_in_as(user)
    return user


def expiring(access: str, seconds: float = -60) -> str:
    """The same access token, valid for this many more seconds."""
    claims = jwt.decode(access, SECRET, algorithms=["HS256"], options={"verify_exp": False})
    return jwt.encode(claims | {"exp": time.time() + seconds}, SECRET)


class TestCommands:
    def test_every_command_works_from_registration_to_logout(self, shell: CommandLine) -> None:
        name = f"user-{uuid4().hex[:8]}"
        (registered,) = shell.json("register", name, stdin=f"{PASSWORD}\n")
        assert registered["username"] == name
        assert shell.json("login", name, stdin=f"{PASSWORD}\n") == [{"url": shell.url, "username": name}]
        (tide,) = shell.json("submit", "What is a tide?", "--wait")
        assert (tide["status"], tide["response_text"], tide["user"]) == ("completed", "done", name)
        (moon,) = shell.json("submit", "-", "--wait", stdin="What is the moon?\n")
        assert moon["prompt_text"] == "What is the moon?"
        assert shell.json("show", str(tide["id"])) == [tide]
        assert shell.json("list") == [moon, tide]
        assert shell.json("list", "--limit", "1") == [moon]
        assert shell.json("list", "--status", "failed") == []
        assert [found["id"] for found in shell.json("similar", "tide?", "--limit", "1")] == [tide["id"]]
        assert shell.json("similar", "nothing like it", "--max-score", "0.1") == []
        (slow,) = shell.json("submit", UNFINISHED)
        assert shell.json("cancel", str(slow["id"]))[0]["status"] == "cancelled"
        assert shell.json("retry", str(slow["id"]))[0]["status"] == "queued"
        assert shell.json("delete", str(slow["id"])) == []
        assert shell.json("list", "--all") == [moon, tide]
        assert shell.json("usage", "--by", "model")[0]["total"]["prompts"] == 3
        assert shell.json("logout") == [{"url": shell.url, "username": name}]
        assert shell.json("list", code=Exit.NOT_LOGGED_IN) == []

    def test_output_without_json_is_plain_text(self, shell: CommandLine, alice: RemoteUser) -> None:
        prompt_id = str(alice.submit("What is\na tide?"))
        alice.wait(int(prompt_id))
        assert shell.run("submit", "Why?", "--wait").stdout == "done\n"
        listed = shell.run("list").stdout.splitlines()
        assert listed[0].split() == ["ID", "STATUS", "SUBMITTED", "PROMPT"]
        assert re.fullmatch(rf"{prompt_id} +completed  \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d  What is a tide\?", listed[2])
        shown = shell.run("show", prompt_id).stdout
        assert shown.startswith(f"prompt       {prompt_id}\nstatus       completed\n")
        assert shown.endswith("\n\nWhat is\na tide?\n\ndone\n")
        assert shell.run("submit", "Again?").stdout == f"Prompt {int(prompt_id) + 2} is queued, at position 1.\n"

    def test_options_may_stand_before_the_command_or_after_it(self, shell: CommandLine, alice: RemoteUser) -> None:
        elsewhere = {"PROMPTWIRE_URL": "http://127.0.0.1:9"}
        for arguments in (["--url", shell.url, "--json", "list"], ["list", "--json", "--url", f"{shell.url}/"]):
            assert shell.run(*arguments, **elsewhere).returncode == Exit.OK

    def test_list_all_reads_many_pages(self, shell: CommandLine, alice: RemoteUser) -> None:
        ids = [alice.submit() for _ in range(105)]
        assert [prompt["id"] for prompt in shell.json("list", "--all")] == ids[::-1]
        assert len(shell.json("list")) == 20

    def test_a_closed_pipe_ends_a_command_without_a_message(self, shell: CommandLine, alice: RemoteUser) -> None:
        alice.submit()
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "wb") as closed:  # noqa: PTH123
            result = subprocess.run(
                command("list"),
                env=shell.environment,
                cwd=ROOT,
                stdout=closed,
                stderr=subprocess.PIPE,
                timeout=MAX_WAIT_SECONDS,
                check=False,
            )
        assert (result.returncode, result.stderr) == (141, b"")


class TestExitCodes:
    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (["submit", "What?", "--wait"], Exit.OK),
            (["submit", "refuse", "--wait"], Exit.FAILED),
            (["submit", "refuse", "--follow"], Exit.FAILED),
            (["submit"], Exit.USAGE),
            (["list", "--status", "gone"], Exit.USAGE),
            (["list", "--url", "nonsense"], Exit.USAGE),
            (["submit", " "], Exit.REFUSED),
            (["show", "999999"], Exit.REFUSED),
            (["retry", "999999", "--follow"], Exit.REFUSED),
        ],
    )
    def test_each_outcome_has_its_exit_code(
        self, shell: CommandLine, alice: RemoteUser, arguments: list[str], code: Exit
    ) -> None:
        for options in ([], ["--json"]):
            result = shell.run(*arguments, *options)
            assert (Exit(result.returncode), bool(result.stderr)) == (code, code != Exit.OK)
            assert "Traceback" not in result.stderr

    def test_a_conflict_is_a_refusal(self, shell: CommandLine, alice: RemoteUser) -> None:
        prompt_id = alice.submit()
        alice.wait(prompt_id)
        result = shell.run("cancel", str(prompt_id))
        assert (result.returncode, result.stderr) == (
            Exit.REFUSED,
            "Error: The prompt has already ended: it is completed.\n",
        )

    def test_a_wrong_password_is_a_failed_login(self, shell: CommandLine, alice: RemoteUser) -> None:
        result = shell.run("login", alice.username, PROMPTWIRE_PASSWORD="wrong password")
        assert (result.returncode, result.stderr) == (
            Exit.NOT_LOGGED_IN,
            "Error: The username or the password is wrong.\n",
        )

    def test_a_server_that_is_down_is_unreachable_after_the_retries(self, tmp_path: Path) -> None:
        nowhere = CommandLine(f"http://127.0.0.1:{processes.free_port()}", tmp_path)
        result = nowhere.run("login", "alice", "--retries", "2", PROMPTWIRE_PASSWORD=PASSWORD)
        assert result.returncode == Exit.UNREACHABLE
        assert result.stderr.count("Trying again in") == 2

    def test_listen_gives_up_if_the_first_connection_fails(self, alice: RemoteUser, tmp_path: Path) -> None:
        nowhere = CommandLine(f"http://127.0.0.1:{processes.free_port()}", tmp_path)
        nowhere.log_in_as(alice)
        assert nowhere.run("listen", "--retries", "1").returncode == Exit.UNREACHABLE

    def test_ctrl_c_ends_a_command_without_a_traceback(self, shell: CommandLine, alice: RemoteUser) -> None:
        with shell.start("submit", UNFINISHED, "--follow") as following:
            wait_until(lambda: alice.http.get("/prompts/").json(), what="the submission")
            following.process.send_signal(signal.SIGINT)
            assert following.wait() == Exit.INTERRUPTED
        assert "Traceback" not in "".join(following.notes)


class TestPasswords:
    @pytest.mark.parametrize("source", ["stdin", "password-file", "environment", "credentials"])
    def test_a_password_comes_from_each_source(self, shell: CommandLine, tmp_path: Path, source: str) -> None:
        name = RemoteUser(shell.url).username
        file = tmp_path / "file"
        file.write_text(
            json.dumps({"username": name, "password": PASSWORD}) if source == "credentials" else f"{PASSWORD}\n"
        )
        result = {
            "stdin": lambda: shell.run("login", name, stdin=f"{PASSWORD}\n"),
            "password-file": lambda: shell.run("login", name, "--password-file", str(file)),
            "environment": lambda: shell.run("login", name, PROMPTWIRE_PASSWORD=PASSWORD),
            "credentials": lambda: shell.run("login", "--credentials", str(file)),
        }[source]()
        assert (result.returncode, result.stdout) == (Exit.OK, f"Logged in to {shell.url} as {name}.\n")
        assert PASSWORD not in result.stdout + result.stderr
        assert PASSWORD not in shell.login_file.path.read_text()
        assert shell.login_file.path.stat().st_mode & 0o777 == 0o600

    def test_a_password_is_never_an_argument(self, shell: CommandLine) -> None:
        for name in ("login", "register"):
            assert shell.run(name, "alice", "--password", PASSWORD).returncode == Exit.USAGE

    def test_a_terminal_asks_for_the_password_without_echo(self, shell: CommandLine) -> None:
        name = RemoteUser(shell.url).username
        child, terminal = pty.fork()
        if child == 0:
            os.chdir(ROOT)
            os.execve(sys.executable, command("login", name), shell.environment)  # noqa: S606
        shown = b""
        while b"Password: " not in shown:
            shown += os.read(terminal, 1000)
        os.write(terminal, f"{PASSWORD}\n".encode())
        try:
            while more := os.read(terminal, 1000):
                shown += more
        except OSError:  # the terminal's other end is closed
            pass
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == Exit.OK
        assert b"Logged in to" in shown
        assert PASSWORD.encode() not in shown


class TestLogins:
    def test_an_expired_login_is_refreshed(self, shell: CommandLine, alice: RemoteUser) -> None:
        shell.log_in_as(alice, access=expiring(alice.tokens["access"]))
        assert shell.json("list") == []
        refreshed = shell.login_file.read()
        assert refreshed.refresh != alice.tokens["refresh"]
        assert shell.json("list") == []
        assert shell.login_file.read() == refreshed

    def test_one_of_several_concurrent_commands_refreshes_the_login(
        self, shell: CommandLine, alice: RemoteUser
    ) -> None:
        """A refresh token that is used twice ends the login."""
        shell.log_in_as(alice, access=expiring(alice.tokens["access"]))
        with ExitStack() as stack:
            with shell.login_file.locked():
                started = [stack.enter_context(shell.start("list")) for _ in range(4)]
                wait_until(
                    lambda: waiting_for(shell.login_file.path.with_suffix(".lock")) == 4,
                    what="all commands waiting for the lock",
                )
            assert [running.wait() for running in started] == [Exit.OK] * 4
        assert shell.run("list").returncode == Exit.OK

    def test_a_login_that_was_ended_elsewhere_is_deleted(self, shell: CommandLine, alice: RemoteUser) -> None:
        alice.http.post("/auth/logout/", json={"refresh": alice.tokens["refresh"]})
        assert shell.run("list").returncode == Exit.NOT_LOGGED_IN
        assert shell.run("listen").returncode == Exit.NOT_LOGGED_IN
        assert shell.login_file.read() is None


def waiting_for(file: Path) -> int:
    """The number of processes that wait for a lock on this file (proc_locks(5))."""
    inode = file.stat().st_ino
    return len(re.findall(rf"-> .*:{inode} ", Path("/proc/locks").read_text(), re.MULTILINE))


class TestIdempotentSubmission:
    def test_a_prompt_submitted_during_an_api_restart_is_stored_once(
        self, host: RestartableApi, shell: CommandLine, alice: RemoteUser
    ) -> None:
        with ExitStack() as stack:
            with host.down():
                submitting = stack.enter_context(
                    shell.start("submit", "What is a tide?", "--wait", "--json", *RETRY_FOREVER)
                )
                wait_until(lambda: any("Trying again" in note for note in submitting.notes), what="a first attempt")
            assert submitting.wait() == Exit.OK
        (line,) = submitting.lines
        assert alice.http.get("/prompts/").json() == [json.loads(line)]

    def test_prompts_submitted_while_the_api_is_killed_are_stored_once(
        self, host: RestartableApi, alice: RemoteUser
    ) -> None:
        texts = [f"question {i}" for i in range(200)]
        with client_of(alice) as client:
            submitted: list[int] = []
            submitting = threading.Thread(target=lambda: [submitted.append(client.submit(t)["id"]) for t in texts])
            submitting.start()
            for round_number in range(1, 4):
                wait_until(lambda count=30 * round_number: len(submitted) > count, what="submissions")
                with host.down():
                    pass
            submitting.join(MAX_WAIT_SECONDS)
            listed = list(client.prompts())
        assert [prompt["prompt_text"] for prompt in listed] == texts[::-1]
        assert [prompt["id"] for prompt in listed] == submitted[::-1]

    def test_the_same_idempotency_key_creates_one_prompt(self, shell: CommandLine, alice: RemoteUser) -> None:
        ids = [shell.json("submit", "What is a tide?", "--key", "mine")[0]["id"] for _ in range(2)]
        assert ids[0] == ids[1]
        assert shell.run("submit", "And the moon?", "--key", "mine").returncode == Exit.REFUSED

    def test_a_rate_limit_beyond_the_timeout_is_an_error(self, shell: CommandLine, alice: RemoteUser) -> None:
        limited = {"name": "limited", "rate_limit": "1/minute"}
        key = alice.http.post("/auth/keys/", json=limited).json()["key"]
        assert shell.run("submit", "In time", PROMPTWIRE_API_KEY=key).returncode == Exit.OK
        result = shell.run("submit", "Too soon", "--timeout", "0.5", PROMPTWIRE_API_KEY=key)
        assert result.returncode == Exit.UNREACHABLE
        assert re.fullmatch(r"Error: Too many requests: try again in \d+ s\.\n", result.stderr)


class TestListening:
    def test_each_event_is_shown_once_across_api_restarts(
        self, host: RestartableApi, shell: CommandLine, alice: RemoteUser
    ) -> None:
        ids = [alice.submit("before")]
        alice.wait(ids[0])
        with shell.start("listen", "--json", "--since", "0") as listening:
            wait_until(lambda: len(listening.lines) == 1, what="the first event")
            for i in range(3):
                slow = alice.submit(f"slow {10 + i}")  # finishes while the API is down
                with host.down():
                    pass
                ids += [slow, alice.submit("after")]
                wait_until(lambda: len(listening.lines) == len(ids), what="all events")  # noqa: B023
            listening.process.send_signal(signal.SIGINT)
            assert listening.wait() == Exit.INTERRUPTED
        events = [json.loads(line) for line in listening.lines]
        assert [event["seq"] for event in events] == list(range(1, len(ids) + 1))
        assert sorted(event["id"] for event in events) == sorted(ids)
        assert {event["status"] for event in events} == {"completed"}
        assert "Traceback" not in "".join(listening.notes)

    def test_listen_waits_for_a_server_that_shuts_down(
        self, host: RestartableApi, shell: CommandLine, alice: RemoteUser
    ) -> None:
        """The server closes the socket with 1012."""
        alice.wait(alice.submit("before"))
        with shell.start("listen", "--since", "0") as listening:
            wait_until(lambda: len(listening.lines) == 1, what="the first event")
            with host.down(signal.SIGTERM):
                pass
            alice.wait(alice.submit("after"))
            wait_until(lambda: len(listening.lines) == 2, what="the second event")
        for seq, (line, prompt) in enumerate(zip(listening.lines, ("before", "after"), strict=True), 1):
            assert re.fullmatch(rf" +{seq}  completed +\d+  {prompt} → done\n", line)
        assert any("(1012)" in note for note in listening.notes)

    @pytest.mark.parametrize("seconds", [-60, 2], ids=["has expired", "expires"])
    def test_listen_refreshes_an_access_token_that_is_no_longer_valid(
        self, shell: CommandLine, alice: RemoteUser, seconds: float
    ) -> None:
        shell.log_in_as(alice, access=expiring(alice.tokens["access"], seconds))
        with shell.start("listen", "--json", "--since", "0") as listening:
            wait_until(lambda: shell.login_file.read().refresh != alice.tokens["refresh"], what="the refreshed login")
            alice.submit("Hello")
            wait_until(lambda: len(listening.lines) == 1, what="the event")
        assert json.loads(listening.lines[0])["prompt_text"] == "Hello"

    def test_another_users_room_is_refused(self, shell: CommandLine, alice: RemoteUser) -> None:
        shell.log_in_as(alice, username=RemoteUser(shell.url).username)
        result = shell.run("listen")
        assert (result.returncode, result.stderr) == (Exit.REFUSED, "Error: This room is another user's.\n")

    def test_events_that_are_no_longer_stored_are_replaced_by_the_list(
        self, shell: CommandLine, alice: RemoteUser, sessions
    ) -> None:
        shown = [alice.wait(alice.submit(f"{i}")) for i in range(3)]
        with sessions.begin() as session:
            user = users.find(session, alice.username)
            session.execute(text("DELETE FROM feed WHERE user_id = :id AND seq <= 2"), {"id": user.id})
        with shell.start("listen", "--json", "--since", "0") as listening:
            wait_until(lambda: len(listening.lines) == 4, what="the list")
            alice.submit("live")
            wait_until(lambda: len(listening.lines) == 5, what="the event")
        lines = [json.loads(line) for line in listening.lines]
        assert lines[0] == {"type": "reset", "seq": 3}
        assert lines[1:4] == shown[::-1]
        assert (lines[4]["type"], lines[4]["seq"]) == ("prompt.completed", 4)
        assert any("no longer has all of these events" in note for note in listening.notes)


class TestFollowing:
    def test_follow_shows_text_as_it_arrives(self, shell: CommandLine, alice: RemoteUser, tmp_path: Path) -> None:
        source = tmp_path / "text"
        source.write_text("one ")
        with shell.start("submit", f"copy {source}", "--follow", "--json") as following:
            wait_until(lambda: following.lines, what="some text")
            write(source, "two\n")
            assert following.wait() == Exit.OK
        assert_complete(following.lines, "one two\ndone")

    def test_follow_prints_plain_text_without_json(self, shell: CommandLine, alice: RemoteUser) -> None:
        shown = "0 1 2 3 4 done\n"
        assert shell.run("submit", "slow 5", "--follow").stdout == shown
        prompt_id = str(alice.http.get("/prompts/").json()[0]["id"])
        assert shell.run("show", prompt_id, "--follow").stdout == shown

    def test_an_interrupted_attempt_restarts_the_answer(
        self, shell: CommandLine, alice: RemoteUser, tmp_path: Path
    ) -> None:
        sign = tmp_path / "sign"
        with shell.start("submit", f"break-once {sign}", "--follow") as following:
            wait_until(lambda: following.lines, what="the first half")
            sign.touch()
            assert following.wait() == Exit.OK
        assert "".join(following.lines) == "half\n\nhalf\nwhole done\n"
        assert "The answer was interrupted and restarts.\n" in following.notes

    def test_following_a_prompt_that_is_cancelled_fails(self, shell: CommandLine, alice: RemoteUser) -> None:
        with shell.start("submit", "slow 600", "--follow", "--json") as following:
            wait_until(lambda: following.lines, what="some text")
            shell.json("cancel", str(json.loads(following.lines[0])["id"]))
            assert following.wait() == Exit.FAILED
        assert json.loads(following.lines[-1])["type"] == "prompt.cancelled"

    def test_following_a_retried_prompt_that_is_deleted_is_a_refusal(
        self, shell: CommandLine, alice: RemoteUser
    ) -> None:
        prompt_id = alice.submit(UNFINISHED)
        alice.http.post(f"/prompts/{prompt_id}/cancel/")
        with shell.start("retry", str(prompt_id), "--follow") as following:
            wait_until(lambda: alice.show(prompt_id)["status"] == "queued", what="the retry")
            alice.http.delete(f"/prompts/{prompt_id}/")
            assert following.wait() == Exit.REFUSED

    def test_following_late_shows_the_whole_text(self, shell: CommandLine, alice: RemoteUser, tmp_path: Path) -> None:
        source = tmp_path / "text"
        source.write_text("one ")
        prompt_id = alice.submit(f"copy {source}", websocket=False)
        with shell.start("show", str(prompt_id), "--follow", "--json") as early:
            wait_until(lambda: early.lines, what="some text")
            write(source, "two ")
            wait_until(lambda: len(early.lines) == 2, what="more text")
            with shell.start("show", str(prompt_id), "--follow", "--json") as late:
                wait_until(lambda: late.lines, what="the text so far")
                assert json.loads(late.lines[0])["text"] == "one two "
                write(source, "three\n")
                for following in (early, late):
                    assert following.wait() == Exit.OK
                    assert_complete(following.lines, "one two three\ndone")

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
    def test_all_text_is_shown_once_across_an_api_restart(
        self, host: RestartableApi, shell: CommandLine, alice: RemoteUser, tmp_path: Path, number: signal.Signals
    ) -> None:
        source = tmp_path / "text"
        source.write_text("one ")
        with shell.start("submit", f"copy {source}", "--follow", "--json", *RETRY_FOREVER) as following:
            wait_until(lambda: following.lines, what="some text")
            with host.down(number):
                write(source, "two ")
            wait_until(lambda: len(following.lines) == 2, what="the text written during the restart")
            write(source, "three\n")
            assert following.wait() == Exit.OK
        assert_complete(following.lines, "one two three\ndone")
        assert any("was interrupted" in note for note in following.notes)

    def test_follow_refreshes_an_access_token_that_expires(
        self, shell: CommandLine, alice: RemoteUser, tmp_path: Path
    ) -> None:
        source = tmp_path / "text"
        source.write_text("one ")
        shell.log_in_as(alice, access=expiring(alice.tokens["access"], 3))
        with shell.start("submit", f"copy {source}", "--follow", "--json") as following:
            wait_until(lambda: following.lines, what="some text")
            wait_until(lambda: shell.login_file.read().refresh != alice.tokens["refresh"], what="the refreshed login")
            write(source, "two\n")
            assert following.wait() == Exit.OK
        assert_complete(following.lines, "one two\ndone")

    def test_following_a_prompt_that_is_deleted_is_a_refusal(
        self, shell: CommandLine, alice: RemoteUser, tmp_path: Path
    ) -> None:
        source = tmp_path / "text"
        source.write_text("one ")
        prompt_id = alice.submit(f"copy {source}")
        try:
            with shell.start("show", str(prompt_id), "--follow", "--json") as following:
                wait_until(lambda: following.lines, what="some text")
                alice.http.delete(f"/prompts/{prompt_id}/")
                assert following.wait() == Exit.REFUSED
        finally:
            write(source, "\n")  # releases the worker
        assert json.loads(following.lines[-1]) == {"type": "prompt.deleted", "id": prompt_id}
        assert following.notes == [f"Prompt {prompt_id} was deleted.\n"]

    def test_the_client_works_as_a_library(self, alice: RemoteUser) -> None:
        with client_of(alice) as client:
            *deltas, end = client.follow(lambda: client.submit("slow 3"))
            assert "".join(delta["text"] for delta in deltas) == end["response_text"] == "0 1 2 done"
            assert client.submit("Why?", wait=True)["response_text"] == "done"
            events = client.listen(since=0)
            assert [next(events)["prompt_text"], next(events)["prompt_text"]] == ["slow 3", "Why?"]
            events.close()


class TestContext:
    def test_an_answer_may_come_from_the_cache(self, shell: CommandLine, alice: RemoteUser) -> None:
        submit = ("submit", "What is a tide?", "--wait")
        (first,), (cached,), (uncached,) = (shell.json(*submit, o) for o in ("--cache", "--cache", "--no-cache"))
        assert [prompt["cached_from"] for prompt in (first, cached, uncached)] == [None, first["id"], None]
        assert cached["response_text"] == first["response_text"]
        assert f"\ncached from  {first['id']}\n" in shell.run("show", str(cached["id"])).stdout

    def test_history_sends_earlier_exchanges(self, shell: CommandLine, alice: RemoteUser) -> None:
        for question in ("What is a tide?", "Who wrote Faust?"):
            shell.json("submit", question, "--wait")
        submit = ("submit", "recall the tide", "--wait")
        (one,), (none,) = (shell.json(*submit, "--history", k) for k in ("1", "0"))
        assert (one["history"], one["response_text"]) == (1, "What is a tide? done")
        assert (none["history"], none["response_text"]) == (0, "done")


def test_the_sessions_of_the_guide_work_as_pasted(shell: CommandLine, tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "client.md").read_text()
    session = "".join(re.findall(r"```bash\n(.*?)```", guide, re.DOTALL)).replace(".venv/bin/python", sys.executable)
    login = {"username": RemoteUser(shell.url).username, "password": PASSWORD}
    (tmp_path / "alice.json").write_text(json.dumps(login))
    environment = shell.environment | {"URL": shell.url, "DATA_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        ["bash", "-euc", session],
        env=environment,
        cwd=tmp_path,  # where the session leaves a file
        capture_output=True,
        text=True,
        timeout=MAX_WAIT_SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Explain what causes ocean tides → done" in result.stdout
    assert result.stdout.endswith("done\n")


def test_the_session_of_the_webhooks_guide_works_as_pasted(shell: CommandLine, tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "webhooks.md").read_text()
    (tmp_path / "receiver.py").write_text(re.search(r"```python\n(.*?)```", guide, re.DOTALL)[1])
    session = re.search(r"```bash\n(.*?)```", guide, re.DOTALL)[1].replace(".venv/bin/python", sys.executable)
    user = RemoteUser(shell.url)
    (tmp_path / "alice.json").write_text(json.dumps({"username": user.username, "password": PASSWORD}))
    environment = shell.environment | {"URL": shell.url, "DATA_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    pasted = subprocess.Popen(
        ["bash", "-euc", session],
        env=environment | {"RECEIVER_PORT": str(processes.free_port())},
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output, errors = pasted.communicate(timeout=MAX_WAIT_SECONDS)
    finally:
        processes.kill(pasted)
    assert pasted.returncode == 0, errors
    assert "Received: webhook.test" in output
    assert "Received: prompt.completed done" in output
    assert re.search(r"webhook.test +delivered", output)
    assert re.search(r"prompt.completed +delivered", output)


def write(file: Path, text: str) -> None:
    """Append to the file whose text a "copy FILE" prompt answers."""
    with file.open("a") as end:
        end.write(text)


def assert_complete(lines: list[str], answer: str) -> None:
    """Check that these events have the whole answer, without a gap or a duplicate, and then the completion."""
    *deltas, end = map(json.loads, lines)
    assert len({delta["attempt"] for delta in deltas}) == 1  # not always 1: a prompt of another test may fail its group
    received = ""
    for delta in deltas:
        assert (delta["type"], delta["offset"]) == ("prompt.delta", len(received.encode()))
        received += delta["text"]
    assert (received, end["type"], end["response_text"]) == (answer, "prompt.completed", answer)


def client_of(user: RemoteUser) -> Client:
    """A client that retries without a limit."""
    token_store = MemoryTokenStore()
    token_store.write(Login(user.username, **user.tokens))
    return Client(user.url, token_store=token_store, timeout=3600, retries=1000)
