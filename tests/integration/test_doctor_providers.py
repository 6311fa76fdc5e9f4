"""The doctor asks the generator and the embedder, and says in a sentence what is wrong with them."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.doctor import Finding, Observation, Severity, providers
from shared.settings import Settings
from tests.support.openai_replies import Reply
from tests.support.openai_server import MODEL, OpenAIServer
from tests.support.processes import free_port
from tests.support.servers import MAX_WAIT_SECONDS, make_settings

KEY = "a-key-of-the-tests"
Check = Callable[[Settings], Iterator[Finding | Observation]]


@pytest.fixture(scope="module")
def running() -> Iterator[OpenAIServer]:
    with OpenAIServer() as started:
        yield started


@pytest.fixture
def server(running: OpenAIServer) -> OpenAIServer:
    running.reset()
    return running


def configured(url: str, **changes: object) -> Settings:
    return make_settings(
        **{
            "generator": "openai",
            "embedder": "openai",
            "openai_base_url": url,
            "openai_api_key": KEY,
            "openai_model": MODEL,
            "openai_embedding_model": MODEL,
            "openai_embedding_dimensions": 8,
            **changes,
        },
    )


def report(check: Check, settings: Settings) -> list[tuple[str, str]]:
    """The state and the sentence of each line, without its remedy."""
    found = list(check(settings))
    for each in found:
        assert KEY not in str(each)
        assert isinstance(each, Observation) or each.remedy.endswith(".")
    return [("ok", each.text) if isinstance(each, Observation) else (each.severity, each.problem) for each in found]


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (providers.generator, rf"the endpoint has {MODEL}; listing its models took \d+\.\d\d s"),
        (providers.answer, r"the first text came after \d+\.\d\d s"),
        (providers.embedder, r"one word took \d+\.\d\d s"),
    ],
)
def test_each_check_of_a_working_endpoint_says_how_long_it_took(server: OpenAIServer, check: Check, says: str) -> None:
    ((state, text),) = report(check, configured(server.url))
    assert state == "ok"
    assert re.fullmatch(says, text)


def test_the_generator_is_not_asked_for_an_answer_without_deep(server: OpenAIServer) -> None:
    report(providers.generator, configured(server.url))
    assert server.requests == []


def test_only_the_beginning_of_the_answer_is_read(server: OpenAIServer) -> None:
    server.script(Reply(["one "], then="hang"))
    report(providers.answer, configured(server.url))
    (request,) = server.requests
    assert request.abandoned.wait(MAX_WAIT_SECONDS)


@pytest.mark.parametrize(
    ("models", "model", "state", "says"),
    [
        (["a", "b"], "c", Severity.BEWARE, "OPENAI_MODEL is c, which is not among the models of the endpoint: a, b."),
        ([], "c", Severity.BEWARE, "OPENAI_MODEL is c, which is not among the models of the endpoint: it lists none."),
        (["llama3.2:latest"], "llama3.2", "ok", "the endpoint has llama3.2"),
        (["llama3.2:1b"], "llama3.2", Severity.BEWARE, "OPENAI_MODEL is llama3.2, which is not"),
        ([f"m{i}" for i in range(12)], "c", Severity.BEWARE, "m8, m9 …."),
    ],
)
def test_a_model_that_the_endpoint_does_not_list_is_a_warning(
    server: OpenAIServer, models: list[str], model: str, state: str, says: str
) -> None:
    server.models = models
    ((found, text),) = report(providers.generator, configured(server.url, openai_model=model))
    assert found == state
    assert says in text


@pytest.mark.parametrize(
    ("reply", "state", "says"),
    [
        (Reply(status=401, code="invalid_api_key"), Severity.WRONG, "401"),
        (Reply(status=503), Severity.WRONG, "503"),
        (Reply(status=404), Severity.BEWARE, "404"),
        (Reply(body="<html>It works!</html>"), Severity.WRONG, "The endpoint does not list its models: "),
    ],
)
def test_an_endpoint_that_does_not_list_its_models_is_reported(
    server: OpenAIServer, reply: Reply, state: str, says: str
) -> None:
    server.models_reply = reply
    ((found, text),) = report(providers.generator, configured(server.url))
    assert found == state
    assert says in text


@pytest.mark.parametrize("check", [providers.generator, providers.answer, providers.embedder])
def test_an_endpoint_that_cannot_be_reached_is_wrong(check: Check) -> None:
    settings = configured(f"http://127.0.0.1:{free_port()}/v1")
    (found,) = check(settings)
    assert isinstance(found, Finding)
    assert found.severity == Severity.WRONG
    assert "OPENAI_BASE_URL" in found.remedy


@pytest.mark.parametrize(
    ("reply", "says"),
    [(Reply(status=401, code="invalid_api_key"), "401"), (Reply([]), "answer was empty")],
)
def test_a_generator_without_an_answer_is_wrong(server: OpenAIServer, reply: Reply, says: str) -> None:
    server.script(reply)
    ((state, text),) = report(providers.answer, configured(server.url))
    assert state == Severity.WRONG
    assert "gives no answer: " in text
    assert says in text or "no text" in text


def test_an_embedding_endpoint_that_refuses_is_asked_for_its_models(server: OpenAIServer) -> None:
    server.script_embeddings(Reply(status=404, message="No such model"))
    settings = configured(
        "http://127.0.0.1:9/v1",
        openai_embedding_base_url=server.url,
        openai_embedding_api_key=KEY,
        openai_embedding_model="unknown",
    )
    failure, models = report(providers.embedder, settings)
    assert failure[0] == Severity.WRONG
    assert "No such model" in failure[1]
    assert models == (
        Severity.BEWARE,
        f"OPENAI_EMBEDDING_MODEL is unknown, which is not among the models of the endpoint: {MODEL}.",
    )


def test_a_generator_of_another_kind_is_asked_for_an_answer_only() -> None:
    settings = configured("http://127.0.0.1:9/v1", generator="simulated")
    assert report(providers.generator, settings) == []
    ((state, _),) = report(providers.answer, settings)
    assert state == "ok"


class TestSeveralModels:
    """With MODELS_FILE each model is checked with the settings that its table makes."""

    @pytest.fixture
    def settings(self, server: OpenAIServer, tmp_path: Path) -> Settings:
        file = tmp_path / "models.toml"
        file.write_text(
            f"""
            [models.good]
            model = "{MODEL}"
            [models.other]
            model = "unlisted"
            [models.away]
            model = "{MODEL}"
            base_url = "http://127.0.0.1:{free_port()}/v1"
            [models.own]
            generator = "no.such:Model"
            """
        )
        return configured(server.url, models_file=str(file), app_env="dev")

    def test_each_is_named_with_what_is_wrong_with_it(self, settings: Settings) -> None:
        states, texts = zip(*report(providers.generator, settings), strict=True)
        assert states == ("ok", Severity.BEWARE, Severity.WRONG, Severity.WRONG)
        assert texts[0].startswith(f"good: the endpoint has {MODEL}")
        assert texts[1].startswith("other: OPENAI_MODEL is unlisted, which is not among the models")
        assert texts[2].startswith("away: The endpoint does not list its models: ")
        assert texts[3].startswith("own: GENERATOR='no.such:Model' could not be imported")

    def test_the_remedy_says_where_its_settings_stand(self, settings: Settings) -> None:
        remedies = [each.remedy for each in providers.generator(settings) if isinstance(each, Finding)]
        assert all("See MODELS_FILE" in remedy for remedy in remedies)

    def test_each_is_asked_for_an_answer(self, settings: Settings) -> None:
        found = report(providers.answer, settings)
        assert [text.partition(":")[0] for _, text in found] == ["good", "other", "away", "own"]
        assert [state for state, _ in found] == ["ok", "ok", Severity.WRONG, Severity.WRONG]
