"""The client's commands, as processes, against real API and worker processes."""

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
from contextlib import AbstractContextManager, ExitStack, contextmanager
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
from tests.support.command_line import STUBBORN, CommandLine, command
from tests.support.processes import API, RemoteUser
from tests.support.servers import ROOT, SECRET, Servers, wait_until

#: A prompt that is tried now and then, and holds no worker.
UNFINISHED = "fail-until /nowhere"


@pytest.fixture(scope="module")
def settings(servers: Servers) -> Iterator[Settings]:
    with servers.database() as name:
        yield servers.settings(
            name, generator="tests.support.providers:one_by_one", reaper_seconds=0.5, max_attempts=100
        )


@pytest.fixture(scope="module", autouse=True)
def _worker(settings: Settings) -> Iterator[None]:
    with processes.worker(settings):
        yield


@pytest.fixture
def shell(url: str, tmp_path: Path) -> CommandLine:
    """Nobody is logged in."""
    return CommandLine(url, tmp_path)


@pytest.fixture
def alice(shell: CommandLine) -> RemoteUser:
    """Who is logged in."""
    user = RemoteUser(shell.url)
    shell.be(user)
    return user


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


def expired(access: str, seconds: float = -60) -> str:
    """The same access token, good for so long."""
    claims = jwt.decode(access, SECRET, algorithms=["HS256"], options={"verify_exp": False})
    return jwt.encode(claims | {"exp": time.time() + seconds}, SECRET)


class TestCommands:
    def test_from_registering_to_logging_out(self, shell: CommandLine) -> None:
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
        assert shell.json("logout") == [{"url": shell.url, "username": name}]
        assert shell.json("list", code=Exit.NOT_LOGGED_IN) == []

    def test_for_people(self, shell: CommandLine, alice: RemoteUser) -> None:
        prompt_id = str(alice.submit("What is\na tide?"))
        alice.wait(int(prompt_id))
        assert shell.run("submit", "Why?", "--wait").stdout == "done\n"
        listed = shell.run("list").stdout.splitlines()
        assert listed[0].split() == ["ID", "STATUS", "SUBMITTED", "PROMPT"]
        assert re.fullmatch(rf"{prompt_id} +completed  \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d  What is a tide\?", listed[2])
        shown = shell.run("show", prompt_id).stdout
        assert shown.startswith(f"prompt     {prompt_id}\nstatus     completed\n")
        assert shown.endswith("\n\nWhat is\na tide?\n\ndone\n")
        assert shell.run("submit", "Again?").stdout == f"Prompt {int(prompt_id) + 2} is queued.\n"

    def test_options_may_stand_before_the_command_or_after_it(self, shell: CommandLine, alice: RemoteUser) -> None:
        elsewhere = {"PROMPTWIRE_URL": "http://127.0.0.1:9"}
        for arguments in (["--url", shell.url, "--json", "list"], ["list", "--json", "--url", f"{shell.url}/"]):
            assert shell.run(*arguments, **elsewhere).returncode == Exit.FINE

    def test_many_pages(self, shell: CommandLine, alice: RemoteUser) -> None:
        ids = [alice.submit() for _ in range(105)]
        assert [prompt["id"] for prompt in shell.json("list", "--all")] == ids[::-1]
        assert len(shell.json("list")) == 20

    def test_a_reader_that_has_seen_enough_ends_it_quietly(self, shell: CommandLine, alice: RemoteUser) -> None:
        alice.submit()
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "wb") as closed:  # noqa: PTH123
            ended = subprocess.run(
                command("list"), env=shell.environment, cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, check=False
            )
        assert (ended.returncode, ended.stderr) == (141, b"")


class TestExitCodes:
    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (["submit", "What?", "--wait"], Exit.FINE),
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
    def test_of_what_a_user_does(self, shell: CommandLine, alice: RemoteUser, arguments: list[str], code: Exit) -> None:
        for options in ([], ["--json"]):
            ended = shell.run(*arguments, *options)
            assert (Exit(ended.returncode), bool(ended.stderr)) == (code, code != Exit.FINE)
            assert "Traceback" not in ended.stderr

    def test_a_conflict(self, shell: CommandLine, alice: RemoteUser) -> None:
        prompt_id = alice.submit()
        alice.wait(prompt_id)
        ended = shell.run("cancel", str(prompt_id))
        assert (ended.returncode, ended.stderr) == (
            Exit.REFUSED,
            "Error: The prompt has already ended: it is completed.\n",
        )

    def test_a_wrong_password(self, shell: CommandLine, alice: RemoteUser) -> None:
        ended = shell.run("login", alice.username, PROMPTWIRE_PASSWORD="wrong password")
        assert (ended.returncode, ended.stderr) == (
            Exit.NOT_LOGGED_IN,
            "Error: The username or the password is wrong.\n",
        )

    def test_nobody_answers(self, tmp_path: Path) -> None:
        nowhere = CommandLine(f"http://127.0.0.1:{processes.free_port()}", tmp_path)
        ended = nowhere.run("login", "alice", "--retries", "2", PROMPTWIRE_PASSWORD=PASSWORD)
        assert ended.returncode == Exit.UNREACHABLE
        assert ended.stderr.count("Trying again in") == 2

    def test_nobody_answers_who_listens(self, shell: CommandLine, alice: RemoteUser, tmp_path: Path) -> None:
        nowhere = CommandLine(f"http://127.0.0.1:{processes.free_port()}", tmp_path)
        nowhere.be(alice)
        assert nowhere.run("listen", "--retries", "1").returncode == Exit.UNREACHABLE

    def test_interrupted(self, shell: CommandLine, alice: RemoteUser) -> None:
        with shell.running("submit", UNFINISHED, "--follow") as following:
            wait_until(lambda: alice.http.get("/prompts/").json(), what="the submission")
            following.process.send_signal(signal.SIGINT)
            assert following.wait() == Exit.INTERRUPTED
        assert "Traceback" not in "".join(following.notes)


class TestPasswords:
    @pytest.mark.parametrize("how", ["stdin", "password-file", "environment", "credentials"])
    def test_where_they_come_from(self, shell: CommandLine, tmp_path: Path, how: str) -> None:
        name = RemoteUser(shell.url).username
        file = tmp_path / "file"
        file.write_text(
            json.dumps({"username": name, "password": PASSWORD}) if how == "credentials" else f"{PASSWORD}\n"
        )
        ended = {
            "stdin": lambda: shell.run("login", name, stdin=f"{PASSWORD}\n"),
            "password-file": lambda: shell.run("login", name, "--password-file", str(file)),
            "environment": lambda: shell.run("login", name, PROMPTWIRE_PASSWORD=PASSWORD),
            "credentials": lambda: shell.run("login", "--credentials", str(file)),
        }[how]()
        assert (ended.returncode, ended.stdout) == (Exit.FINE, f"Logged in to {shell.url} as {name}.\n")
        assert PASSWORD not in ended.stdout + ended.stderr
        assert PASSWORD not in shell.login_file.path.read_text()
        assert shell.login_file.path.stat().st_mode & 0o777 == 0o600

    def test_never_from_an_argument(self, shell: CommandLine) -> None:
        for name in ("login", "register"):
            assert shell.run(name, "alice", "--password", PASSWORD).returncode == Exit.USAGE

    def test_on_a_terminal_without_echo(self, shell: CommandLine) -> None:
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
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == Exit.FINE
        assert b"Logged in to" in shown
        assert PASSWORD.encode() not in shown


class TestLogins:
    def test_an_expired_one_is_renewed(self, shell: CommandLine, alice: RemoteUser) -> None:
        shell.be(alice, access=expired(alice.tokens["access"]))
        assert shell.json("list") == []
        renewed = shell.login_file.read()
        assert renewed.refresh != alice.tokens["refresh"]
        assert shell.json("list") == []
        assert shell.login_file.read() == renewed

    def test_of_processes_that_renew_it_at_once_one_does(self, shell: CommandLine, alice: RemoteUser) -> None:
        """A refresh token that is spent twice would end the login."""
        shell.be(alice, access=expired(alice.tokens["access"]))
        with ExitStack() as stack:
            with shell.login_file.locked():
                started = [stack.enter_context(shell.running("list")) for _ in range(4)]
                wait_until(lambda: waiting_for(shell.login_file.path.with_suffix(".lock")) == 4, what="all waiting")
            assert [running.wait() for running in started] == [Exit.FINE] * 4
        assert shell.run("list").returncode == Exit.FINE

    def test_one_that_was_ended_elsewhere(self, shell: CommandLine, alice: RemoteUser) -> None:
        alice.http.post("/auth/logout/", json={"refresh": alice.tokens["refresh"]})
        assert shell.run("list").returncode == Exit.NOT_LOGGED_IN
        assert shell.run("listen").returncode == Exit.NOT_LOGGED_IN
        assert shell.login_file.read() is None


def waiting_for(file: Path) -> int:
    """How many processes wait for a lock on this file (proc_locks(5))."""
    inode = file.stat().st_ino
    return len(re.findall(rf"-> .*:{inode} ", Path("/proc/locks").read_text(), re.MULTILINE))


class TestOnce:
    def test_submitted_while_the_api_is_restarted(self, settings: Settings, tmp_path: Path) -> None:
        shell = CommandLine(f"http://127.0.0.1:{processes.free_port()}", tmp_path)
        with killable_api(settings, shell.url):
            alice = RemoteUser(shell.url)
            shell.be(alice)
        with shell.running("submit", "What is a tide?", "--wait", "--json", *STUBBORN) as submitting:
            wait_until(lambda: any("Trying again" in note for note in submitting.notes), what="a first try")
            with killable_api(settings, shell.url):
                assert submitting.wait() == Exit.FINE
                (line,) = submitting.lines
                assert alice.http.get("/prompts/").json() == [json.loads(line)]

    def test_submitted_while_the_api_is_killed_again_and_again(self, settings: Settings, tmp_path: Path) -> None:
        url = f"http://127.0.0.1:{processes.free_port()}"
        texts = [f"question {i}" for i in range(200)]
        with ExitStack() as stack:
            host = stack.enter_context(ExitStack())
            host.enter_context(killable_api(settings, url))
            alice = RemoteUser(url)
            client = stack.enter_context(client_of(alice))
            submitted: list[int] = []
            submitting = threading.Thread(target=lambda: [submitted.append(client.submit(t)["id"]) for t in texts])
            submitting.start()
            for part in range(1, 4):
                wait_until(lambda part=part: len(submitted) > part * 30, 60, "submissions")
                host.close()
                host.enter_context(killable_api(settings, url))
            submitting.join()
            listed = list(client.prompts())
        assert [prompt["prompt_text"] for prompt in listed] == texts[::-1]
        assert [prompt["id"] for prompt in listed] == submitted[::-1]

    def test_a_key_of_ones_own(self, shell: CommandLine, alice: RemoteUser) -> None:
        made = [shell.json("submit", "What is a tide?", "--key", "mine")[0]["id"] for _ in range(2)]
        assert made[0] == made[1]
        assert shell.run("submit", "And the moon?", "--key", "mine").returncode == Exit.REFUSED

    def test_the_limit_is_kept(self, servers: Servers, settings: Settings, tmp_path: Path) -> None:
        with processes.api(servers.changed(settings, prompt_rate_limit="1/minute")) as url:
            shell = CommandLine(url, tmp_path)
            alice = RemoteUser(url)
            shell.be(alice)
            alice.submit()
            ended = shell.run("submit", "Too soon", "--timeout", "0.5")
            assert ended.returncode == Exit.UNREACHABLE
            assert re.fullmatch(r"Error: Too many requests: try again in \d+ s\.\n", ended.stderr)


class TestListening:
    def test_across_a_restart_of_the_api_each_event_is_shown_once(self, settings: Settings, tmp_path: Path) -> None:
        shell = CommandLine(f"http://127.0.0.1:{processes.free_port()}", tmp_path)
        with ExitStack() as host:
            host.enter_context(killable_api(settings, shell.url))
            alice = RemoteUser(shell.url)
            shell.be(alice)
            ids = [alice.submit("before")]
            alice.wait(ids[0])
            with shell.running("listen", "--json", "--since", "0") as listening:
                wait_until(lambda: len(listening.lines) == 1, what="what was before")
                for i in range(3):
                    left = alice.submit(f"slow {10 + i}")  # ends while nobody is there to tell
                    host.close()
                    host.enter_context(killable_api(settings, shell.url))
                    ids += [left, alice.submit("after")]
                    wait_until(lambda: len(listening.lines) == len(ids), 60, "all events")  # noqa: B023
                listening.process.send_signal(signal.SIGINT)
                assert listening.wait() == Exit.INTERRUPTED
        events = [json.loads(line) for line in listening.lines]
        assert [event["seq"] for event in events] == list(range(1, len(ids) + 1))
        assert sorted(event["id"] for event in events) == sorted(ids)
        assert {event["status"] for event in events} == {"completed"}
        assert "Traceback" not in "".join(listening.notes)

    def test_a_server_that_goes_down_is_waited_for(self, settings: Settings, tmp_path: Path, stack: ExitStack) -> None:
        """It closes with 1012."""
        shell = CommandLine(f"http://127.0.0.1:{processes.free_port()}", tmp_path)
        port = shell.url.rpartition(":")[2]
        with processes.api(settings, port=int(port)):
            alice = RemoteUser(shell.url)
            shell.be(alice)
            alice.wait(alice.submit("before"))
            listening = stack.enter_context(shell.running("listen", "--since", "0"))
            wait_until(lambda: len(listening.lines) == 1, what="what was before")
        with processes.api(settings, port=int(port)):
            alice.wait(alice.submit("after"))
            wait_until(lambda: len(listening.lines) == 2, what="what comes after")
        for seq, (line, said) in enumerate(zip(listening.lines, ("before", "after"), strict=True), 1):
            assert re.fullmatch(rf" +{seq}  completed +\d+  {said} → done\n", line)
        assert any("(1012)" in note for note in listening.notes)

    @pytest.mark.parametrize("seconds", [-60, 2], ids=["has expired", "expires"])
    def test_with_a_token_that_is_not_good_any_more(
        self, shell: CommandLine, alice: RemoteUser, seconds: float
    ) -> None:
        shell.be(alice, access=expired(alice.tokens["access"], seconds))
        with shell.running("listen", "--json", "--since", "0") as listening:
            wait_until(lambda: shell.login_file.read().refresh != alice.tokens["refresh"], what="a new pair")
            alice.submit("Hello")
            wait_until(lambda: len(listening.lines) == 1, what="the event")
        assert json.loads(listening.lines[0])["prompt_text"] == "Hello"

    def test_anothers_room_is_refused(self, shell: CommandLine, alice: RemoteUser) -> None:
        shell.be(alice, username=RemoteUser(shell.url).username)
        ended = shell.run("listen")
        assert (ended.returncode, ended.stderr) == (Exit.REFUSED, "Error: This room is another user's.\n")

    def test_what_is_not_kept_any_more_is_read_from_the_list(
        self, shell: CommandLine, alice: RemoteUser, sessions
    ) -> None:
        shown = [alice.wait(alice.submit(f"{i}")) for i in range(3)]
        with sessions.begin() as session:
            user = users.find(session, alice.username)
            session.execute(text("DELETE FROM feed WHERE user_id = :id AND seq <= 2"), {"id": user.id})
        with shell.running("listen", "--json", "--since", "0") as listening:
            wait_until(lambda: len(listening.lines) == 4, what="the list")
            alice.submit("live")
            wait_until(lambda: len(listening.lines) == 5, what="the event")
        lines = [json.loads(line) for line in listening.lines]
        assert lines[0] == {"type": "reset", "seq": 3}
        assert lines[1:4] == shown[::-1]
        assert (lines[4]["type"], lines[4]["seq"]) == ("prompt.completed", 4)
        assert any("not kept so far back" in note for note in listening.notes)


class TestFollowing:
    def test_text_is_shown_as_it_arrives(self, shell: CommandLine, alice: RemoteUser, tmp_path: Path) -> None:
        source = tmp_path / "text"
        source.write_text("one ")
        with shell.running("submit", f"copy {source}", "--follow", "--json") as following:
            wait_until(lambda: following.lines, what="some text")
            write(source, "two\n")
            assert following.wait() == Exit.FINE
        assert_whole(following.lines, "one two\ndone")

    def test_for_people(self, shell: CommandLine, alice: RemoteUser) -> None:
        shown = "0 1 2 3 4 done\n"
        assert shell.run("submit", "slow 5", "--follow").stdout == shown
        prompt_id = str(alice.http.get("/prompts/").json()[0]["id"])
        assert shell.run("show", prompt_id, "--follow").stdout == shown

    def test_an_attempt_that_breaks_off_begins_anew(
        self, shell: CommandLine, alice: RemoteUser, tmp_path: Path
    ) -> None:
        sign = tmp_path / "sign"
        with shell.running("submit", f"break-once {sign}", "--follow") as following:
            wait_until(lambda: following.lines, what="the first half")
            sign.touch()
            assert following.wait() == Exit.FINE
        assert "".join(following.lines) == "half\n\nhalf\nwhole done\n"
        assert "That broke off; it begins anew.\n" in following.notes

    def test_one_that_is_cancelled_meanwhile(self, shell: CommandLine, alice: RemoteUser) -> None:
        with shell.running("submit", "slow 600", "--follow", "--json") as following:
            wait_until(lambda: following.lines, what="some text")
            shell.json("cancel", str(json.loads(following.lines[0])["id"]))
            assert following.wait() == Exit.FAILED
        assert json.loads(following.lines[-1])["type"] == "prompt.cancelled"

    def test_one_that_is_tried_again_and_then_deleted(self, shell: CommandLine, alice: RemoteUser) -> None:
        prompt_id = alice.submit(UNFINISHED)
        alice.http.post(f"/prompts/{prompt_id}/cancel/")
        with shell.running("retry", str(prompt_id), "--follow") as following:
            wait_until(lambda: alice.show(prompt_id)["status"] == "queued", what="the retry")
            alice.http.delete(f"/prompts/{prompt_id}/")
            assert following.wait() == Exit.REFUSED

    def test_from_its_middle(self, shell: CommandLine, alice: RemoteUser, tmp_path: Path) -> None:
        source = tmp_path / "text"
        source.write_text("one ")
        prompt_id = alice.submit(f"copy {source}", websocket=False)
        with shell.running("show", str(prompt_id), "--follow", "--json") as early:
            wait_until(lambda: early.lines, what="some text")
            write(source, "two ")
            wait_until(lambda: len(early.lines) == 2, what="more text")
            with shell.running("show", str(prompt_id), "--follow", "--json") as late:
                wait_until(lambda: late.lines, what="all text there is")
                assert json.loads(late.lines[0])["text"] == "one two "
                write(source, "three\n")
                for following in (early, late):
                    assert following.wait() == Exit.FINE
                    assert_whole(following.lines, "one two three\ndone")

    @pytest.mark.parametrize("how", ["killed", "told to stop"])
    def test_across_a_restart_of_the_api_all_text_is_shown_once(
        self, settings: Settings, tmp_path: Path, how: str
    ) -> None:
        def host() -> AbstractContextManager[object]:
            port = int(shell.url.rpartition(":")[2])
            return killable_api(settings, shell.url) if how == "killed" else processes.api(settings, port=port)

        shell = CommandLine(f"http://127.0.0.1:{processes.free_port()}", tmp_path)
        source = tmp_path / "text"
        source.write_text("one ")
        with ExitStack() as stack:
            with host():
                shell.be(RemoteUser(shell.url))
                following = stack.enter_context(
                    shell.running("submit", f"copy {source}", "--follow", "--json", *STUBBORN)
                )
                wait_until(lambda: following.lines, what="some text")
            write(source, "two ")
            with host():
                wait_until(lambda: len(following.lines) == 2, 60, "what came meanwhile")
                write(source, "three\n")
                assert following.wait() == Exit.FINE
        assert_whole(following.lines, "one two three\ndone")
        assert any("broke off" in note for note in following.notes)

    def test_with_a_token_that_expires(self, shell: CommandLine, alice: RemoteUser, tmp_path: Path) -> None:
        source = tmp_path / "text"
        source.write_text("one ")
        shell.be(alice, access=expired(alice.tokens["access"], 3))
        with shell.running("submit", f"copy {source}", "--follow", "--json") as following:
            wait_until(lambda: following.lines, what="some text")
            wait_until(lambda: shell.login_file.read().refresh != alice.tokens["refresh"], what="a new pair")
            write(source, "two\n")
            assert following.wait() == Exit.FINE
        assert_whole(following.lines, "one two\ndone")

    def test_one_that_is_deleted_meanwhile(self, shell: CommandLine, alice: RemoteUser, tmp_path: Path) -> None:
        source = tmp_path / "text"
        source.write_text("one ")
        prompt_id = alice.submit(f"copy {source}")
        try:
            with shell.running("show", str(prompt_id), "--follow", "--json") as following:
                wait_until(lambda: following.lines, what="some text")
                alice.http.delete(f"/prompts/{prompt_id}/")
                assert following.wait() == Exit.REFUSED
        finally:
            write(source, "\n")  # lets the worker go
        assert json.loads(following.lines[-1]) == {"type": "prompt.deleted", "id": prompt_id}
        assert following.notes == [f"Prompt {prompt_id} was deleted.\n"]

    def test_as_a_library(self, alice: RemoteUser) -> None:
        with client_of(alice) as client:
            *deltas, end = client.follow(lambda: client.submit("slow 3"))
            assert "".join(delta["text"] for delta in deltas) == end["response_text"] == "0 1 2 done"
            assert client.submit("Why?", wait=True)["response_text"] == "done"
            events = client.listen(since=0)
            assert [next(events)["prompt_text"], next(events)["prompt_text"]] == ["slow 3", "Why?"]
            events.close()


class TestMemory:
    def test_an_answer_may_come_from_an_earlier_prompt(self, shell: CommandLine, alice: RemoteUser) -> None:
        asking = ("submit", "What is a tide?", "--wait")
        (first,), (again,), (anew,) = (shell.json(*asking, how) for how in ("--cache", "--cache", "--no-cache"))
        assert [prompt["cached_from"] for prompt in (first, again, anew)] == [None, first["id"], None]
        assert again["response_text"] == first["response_text"]
        assert f"\nanswer of  {first['id']}\n" in shell.run("show", str(again["id"])).stdout

    def test_earlier_exchanges_come_along(self, shell: CommandLine, alice: RemoteUser) -> None:
        for asked in ("What is a tide?", "Who wrote Faust?"):
            shell.json("submit", asked, "--wait")
        asking = ("submit", "recall the tide", "--wait")
        (one,), (none,) = (shell.json(*asking, "--history", k) for k in ("1", "0"))
        assert (one["history"], one["response_text"]) == (1, "What is a tide? done")
        assert (none["history"], none["response_text"]) == (0, "done")


def test_the_session_of_the_guide_works_as_pasted(shell: CommandLine, tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "client.md").read_text()
    session = re.search(r"```bash\n(.*?)```", guide, re.DOTALL)[1].replace(".venv/bin/python", sys.executable)
    login = {"username": RemoteUser(shell.url).username, "password": PASSWORD}
    (tmp_path / "alice.json").write_text(json.dumps(login))
    environment = shell.environment | {"URL": shell.url, "DATA_DIR": str(tmp_path)}
    ended = subprocess.run(
        ["bash", "-euc", session], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "Explain what causes ocean tides → done" in ended.stdout


def write(file: Path, text: str) -> None:
    """Has a prompt "copy FILE" go on."""
    with file.open("a") as end:
        end.write(text)


def assert_whole(lines: list[str], answer: str) -> None:
    """These events tell the answer once, without a gap, and then that it is complete."""
    *deltas, end = map(json.loads, lines)
    told = ""
    for delta in deltas:
        assert (delta["type"], delta["attempt"], delta["offset"]) == ("prompt.delta", 1, len(told.encode()))
        told += delta["text"]
    assert (told, end["type"], end["response_text"]) == (answer, "prompt.completed", answer)


@contextmanager
def killable_api(settings: Settings, url: str) -> Iterator[None]:
    """The API at this address, killed at the end."""
    running = processes.start(API, settings, PORT=url.rpartition(":")[2], API_PROCESSES="1")
    try:
        wait_until(lambda: processes.answers(url), what="the API starting")
        yield
    finally:
        processes.kill(running)


def client_of(user: RemoteUser) -> Client:
    """A client that goes on however long it takes."""
    token_store = MemoryTokenStore()
    token_store.write(Login(user.username, **user.tokens))
    return Client(user.url, token_store=token_store, timeout=3600, retries=1000)
