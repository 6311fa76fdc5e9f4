"""The guide's example of a custom model, run as it stands in `docs/models.md`."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from sqlalchemy import text

from shared.db.engine import Sessions
from shared.providers.factory import capabilities
from shared.providers.model_request import Capability
from shared.settings import Settings
from tests.support.client import ApiUser
from tests.support.openai_client import body
from tests.support.raw_server import RawServer, response
from tests.support.servers import ROOT, Servers, make_settings
from worker.pipeline import Pipeline
from worker.services import make_services

SECTION = (ROOT / "docs" / "models.md").read_text().partition("\n## Your own model\n")[2]


def example(language: str, number: int = 0) -> str:
    """The first block of code in this language, or a later one."""
    return re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)[number]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the example, on Python's path and on PATH, where its program is looked up."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "my_model.py").write_text(example("python"))
    return tmp_path


def install_program(folder: Path, script: str) -> None:
    program = folder / "ollama"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.fixture
def make_pipeline(servers: Servers, settings: Settings, folder: Path):
    """Creates a worker's pipeline with the example as its generator, named by the setting."""
    made: list[Pipeline] = []

    def make(generator: str = "my_model:Ollama") -> Pipeline:
        made.append(make_services(servers.changed(settings, generator=generator)).pipeline)
        return made[-1]

    yield make
    for pipeline in made:
        pipeline.sessions.kw["bind"].dispose()


def test_the_example_has_at_most_15_lines() -> None:
    lines = [line for line in example("python").splitlines() if line and not line.startswith("#")]
    assert len(lines) <= 15


def test_the_example_answers_prompts(alice: ApiUser, make_pipeline, folder: Path) -> None:
    install_program(folder, 'echo "$@"; cat')
    prompt_id = alice.submit("--help\nWhat is a tide?")
    make_pipeline().process(1)
    shown = alice.show(prompt_id)
    assert (shown["status"], shown["response_text"]) == ("completed", "run llama3.2\n--help\nWhat is a tide?")


def test_the_example_answers_long_prompts(alice: ApiUser, make_pipeline, folder: Path) -> None:
    install_program(folder, "cat")
    text = "What is a tide? " * 6_000
    prompt_id = alice.submit(text)
    make_pipeline().process(1)
    assert alice.show(prompt_id)["response_text"] == text


def test_a_failure_of_the_example_is_retried(alice: ApiUser, make_pipeline, folder: Path) -> None:
    install_program(folder, "echo half; exit 7")
    prompt_id = alice.submit("What is a tide?")
    make_pipeline().process(1)
    shown = alice.show(prompt_id)
    assert (shown["status"], shown["response_text"], shown["attempt"]) == ("queued", None, 1)


def test_the_example_can_be_installed_as_a_package_and_named(alice: ApiUser, make_pipeline, folder: Path) -> None:
    install_program(folder, "echo as a package")
    declared = tomllib.loads(example("toml"))["project"]["entry-points"]
    metadata = folder / "my_model-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-model\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "\n".join(f"[{group}]\n" + "\n".join(map(" = ".join, points.items())) for group, points in declared.items())
    )
    prompt_id = alice.submit("What is a tide?")
    make_pipeline("ollama").process(1)
    assert alice.show(prompt_id)["response_text"] == "as a package\n"


TOOLS = {"tools": [{"type": "function", "function": {"name": "get_weather"}}], "instructions": "Be brief."}
OLLAMA = {"model": "llama3.2", "prompt_eval_count": 7, "eval_count": 3, "done_reason": "stop"}
CALLED = {"content": "", "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Bern"}}}]}


def test_the_example_of_a_chat_gets_the_whole_request_and_calls_tools(
    alice: ApiUser, make_pipeline, sessions: Sessions, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "my_chat.py").write_text(example("python", 1))
    with RawServer() as ollama:
        ollama.script(response(json.dumps(OLLAMA | {"message": CALLED}).encode(), "application/json", length=True))
        monkeypatch.setenv("OLLAMA_HOST", ollama.url.removesuffix("/v1"))
        prompt_id = alice.submit("What is the weather?")
        with sessions.begin() as session:
            session.execute(text("UPDATE prompts SET request = CAST(:asked AS jsonb)"), {"asked": json.dumps(TOOLS)})
        make_pipeline("my_chat:Chat").process(1)
        sent = body(ollama.requests[0])
    shown = alice.show(prompt_id)
    assert [message["content"] for message in sent["messages"]] == ["Be brief.", "What is the weather?"]
    assert sent["tools"] == TOOLS["tools"]
    assert (shown["status"], shown["response_text"], shown["finish_reason"]) == ("completed", "", "tool_calls")
    assert shown["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city": "Bern"}'}


def test_the_example_of_a_chat_declares_what_it_can_do(folder: Path) -> None:
    (folder / "my_chat.py").write_text(example("python", 1))
    can = capabilities(make_settings(generator="my_chat:Chat"))
    assert can == {Capability.INSTRUCTIONS, Capability.MESSAGES, Capability.TOOLS, Capability.TEMPERATURE}
    assert capabilities(make_settings(generator="my_model:Ollama")) == frozenset()
