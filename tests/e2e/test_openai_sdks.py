"""OpenAI's SDKs for Python and Node, unmodified, against the API with two processes and a worker; and kill -9."""

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import NamedTuple
from uuid import uuid4

import openai
import psutil
import pytest
from openai import OpenAI

from shared.settings import Settings
from tests.sdk import batch_calls, chat_calls, error_calls, model_calls, response_calls
from tests.sdk.chat_calls import QUESTION
from tests.support import npm, processes
from tests.support.processes import API, RemoteUser, free_port
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, Servers, wait_until

#: The modules of calls: those of the Python SDK, and in `tests/sdk` those of the Node SDK.
PYTHON: list[ModuleType] = [batch_calls, chat_calls, error_calls, model_calls, response_calls]
NODE = ["batches", "chat", "errors", "models", "responses"]

Call = Callable[[OpenAI], None]


def calls_of(module: ModuleType) -> list[Call]:
    """The calls of a module: its functions of a client alone."""
    made = [each for _, each in inspect.getmembers(module, inspect.isfunction) if each.__module__ == module.__name__]
    return [each for each in made if list(inspect.signature(each).parameters) == ["client"]]


CALLS = {each.__name__: each for module in PYTHON for each in calls_of(module)}


class Stack(NamedTuple):
    """An API with two processes, and a worker."""

    url: str
    api: subprocess.Popen
    worker: subprocess.Popen

    def kill(self, running: subprocess.Popen) -> None:
        """kill -9 the child processes of gunicorn or of the worker. Their parents start others."""
        for child in psutil.Process(running.pid).children(recursive=True):
            child.send_signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def settings(own_settings: Settings) -> Settings:
    # Answers take a moment, so that a process can be killed in the middle of one, and are tried again soon.
    changes = {"simulated_delay": 0.3, "lease_seconds": 2, "reaper_seconds": 0.2, "retry_backoff_seconds": 0.1}
    return Servers.changed(own_settings, **changes)


@pytest.fixture(scope="module")
def stack(settings: Settings) -> Iterator[Stack]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (
        processes.worker(settings, processes=4) as worker,
        processes.process(API, settings, PORT=str(port), API_PROCESSES="2") as api,
    ):
        wait_until(lambda: processes.answers(url), what="the API starting")
        yield Stack(url, api, worker)


@pytest.fixture(scope="module")
def alice(stack: Stack) -> RemoteUser:
    return RemoteUser(stack.url)


@pytest.fixture(scope="module")
def client(alice: RemoteUser) -> Iterator[OpenAI]:
    key = alice.http.post("/auth/keys/", json={"name": "SDK"}).raise_for_status().json()["key"]
    with OpenAI(base_url=f"{alice.url}/v1", api_key=key, timeout=MAX_WAIT_SECONDS) as made:
        yield made


@pytest.mark.parametrize("name", CALLS)
def test_the_python_sdk_is_served(client: OpenAI, name: str) -> None:
    CALLS[name](client)


def test_the_node_sdk_is_served(client: OpenAI) -> None:
    command = [npm.node(), "run.mjs", str(client.base_url), client.api_key, *NODE]
    modules = os.environ | {"NODE_PATH": str(npm.install())}
    done = subprocess.run(
        command, cwd=npm.SDK, env=modules, capture_output=True, text=True, timeout=MAX_WAIT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["failed"] == {}
    assert min(len(CALLS), len(result["passed"])) >= 40


def test_what_is_over_the_rate_limit_is_repeated_after_the_time_that_the_api_names(
    alice: RemoteUser, client: OpenAI
) -> None:
    fields = {"name": "slow", "rate_limit": "1/second"}
    slow = client.with_options(api_key=alice.http.post("/auth/keys/", json=fields).raise_for_status().json()["key"])
    create = slow.chat.completions.with_raw_response.create
    found: list[int] = []
    calls = [threading.Thread(target=lambda: found.append(create(**ASK).retries_taken)) for _ in range(2)]
    for call in calls:
        call.start()
    for call in calls:
        call.join(MAX_WAIT_SECONDS)
    assert sorted(found)[0] == 0 < sorted(found)[1]


def block(language: str, page: str = "openai") -> str:
    """The code of this language in a page of the documentation."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return found


class TestGuide:
    """The sessions of the documentation, as they are pasted."""

    def test_the_python_session_works(self, client: OpenAI) -> None:
        printed = self._run(client, [sys.executable, "-c", block("python")])
        assert printed.count("ocean tides") == 3
        assert "384 dimensions" in printed

    def test_the_session_with_a_response_that_is_resumed_works(self, client: OpenAI) -> None:
        assert "ocean tides" in self._run(client, [sys.executable, "-c", block("python", "responses")])

    def test_the_node_session_works(self, client: OpenAI) -> None:
        folder = npm.install().parent
        script = folder / f"session-{uuid4().hex}.mjs"
        script.write_text(block("javascript"))
        printed = self._run(client, [npm.node(), str(script)])
        script.unlink()
        assert printed.count("ocean tides") == 2
        assert "simulated. true" in printed

    @staticmethod
    def _run(client: OpenAI, command: list[str]) -> str:
        variables = {"OPENAI_BASE_URL": str(client.base_url), "OPENAI_API_KEY": client.api_key}
        done = subprocess.run(
            command, env=os.environ | variables, capture_output=True, text=True, timeout=MAX_WAIT_SECONDS, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


ASK = {"model": "default", "messages": QUESTION}


class TestKills:
    """kill -9 in the middle of a call."""

    def test_a_stream_is_whole_although_its_worker_is_killed(self, stack: Stack, client: OpenAI) -> None:
        stream = client.chat.completions.create(**ASK, stream=True)
        text, killed = "", False
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            if text and not killed:
                stack.kill(stack.worker)
                killed = True
        assert killed
        assert text == client.chat.completions.create(**ASK).choices[0].message.content

    def test_a_call_is_answered_once_although_its_api_process_is_killed(
        self, stack: Stack, alice: RemoteUser, client: OpenAI
    ) -> None:
        marker = {"call": str(uuid4())}
        headers = {"Idempotency-Key": marker["call"]}
        killing = threading.Timer(0, self._kill_when_stored, [stack, alice, marker])
        killing.start()
        patient = client.with_options(max_retries=10)
        completion = patient.chat.completions.create(**ASK, metadata=marker, extra_headers=headers)
        killing.join(MAX_WAIT_SECONDS)
        assert completion.choices[0].message.content
        assert len(self._prompts(alice, marker)) == 1

    def test_a_stream_whose_api_process_is_killed_is_an_error_and_whole_when_repeated(
        self, stack: Stack, client: OpenAI
    ) -> None:
        headers = {"Idempotency-Key": str(uuid4())}
        stream = client.chat.completions.create(**ASK, stream=True, extra_headers=headers)
        first = next(stream)
        stack.kill(stack.api)
        with pytest.raises(openai.APIConnectionError):
            list(stream)
        wait_until(lambda: processes.answers(stack.url), what="the API starting again")
        patient = client.with_options(max_retries=10)
        again = list(patient.chat.completions.create(**ASK, stream=True, extra_headers=headers))
        assert again[0].id == first.id
        whole = patient.chat.completions.retrieve(first.id).choices[0].message.content
        assert "".join(chunk.choices[0].delta.content or "" for chunk in again) == whole

    def _kill_when_stored(self, stack: Stack, alice: RemoteUser, marker: dict[str, str]) -> None:
        wait_until(lambda: self._prompts(alice, marker), what="the prompt being stored")
        stack.kill(stack.api)

    @staticmethod
    def _prompts(alice: RemoteUser, marker: dict[str, str]) -> list[dict]:
        found = alice.http.get("/prompts/?limit=100").raise_for_status().json()
        return [prompt for prompt in found if prompt["metadata"] == marker]
