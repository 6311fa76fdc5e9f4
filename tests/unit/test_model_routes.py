"""MODELS_FILE: model routes, each with settings of its own, and the sentences about its mistakes."""

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.errors import ContextTooLongError, UnknownModelError
from shared.messaging.queue import QUEUE, make_celery, queue_name
from shared.prompts.model_choice import ModelChoice
from shared.providers.model_request import TEXT_ONLY, ModelRequest
from shared.settings import Settings, SettingsError, load_flower_settings, load_settings, load_settings_without_models
from shared.settings.model_routes import ModelRoute
from tests.support.servers import ROOT, environment_of, make_settings
from worker.celery_pool import choose_pool
from worker.prerequisites import check

REMOTE = '[models.large]\ngenerator = "openai"\nmodel = "m"\n'
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a MODELS_FILE. Returns its path."""

    def write(content: str) -> str:
        path = tmp_path / "models.toml"
        path.write_text(content)
        return str(path)

    return write


@pytest.fixture
def load(write: Write) -> Callable[..., Settings]:
    return lambda content, **changes: make_settings(models_file=write(content), **changes)


def refusal(load: Callable[[], object]) -> str:
    with pytest.raises(ValidationError) as refused:
        load()
    (error,) = refused.value.errors()
    return error["msg"].removeprefix("Value error, ")


def test_without_the_file_there_is_one_route_made_of_the_settings() -> None:
    settings = make_settings(generator="openai", openai_model="m", openai_concurrency=3)
    assert settings.models == {"default": settings}
    assert settings.host_models == settings.models


def test_each_key_of_a_route_replaces_a_setting_and_the_others_stay(load) -> None:
    settings = load(
        """
        [models."gpt-4.1/mini"]
        generator = "openai"
        model = "gpt-4.1-mini"
        base_url = "http://127.0.0.1:9/v1"
        concurrency = 4
        context_tokens = 8192
        input_price = 0.15
        output_price = 2
        system_prompt = "Be brief."
        temperature = 1
        max_output_tokens = 500
        timeout_seconds = 20.5
        """,
        max_attempts=7,
        openai_temperature=0.5,
    )
    (route,) = settings.models.values()
    assert list(settings.models) == ["gpt-4.1/mini"]
    assert (route.generator, route.openai_model, route.openai_base_url) == (
        "openai", "gpt-4.1-mini", "http://127.0.0.1:9/v1",
    )  # fmt: skip
    assert (route.concurrency_ceiling, route.context_tokens) == (4, 8192)
    assert (route.input_price, route.output_price) == (Decimal("0.15"), Decimal(2))
    assert (route.openai_system_prompt, route.openai_temperature, route.openai_max_tokens) == ("Be brief.", 1, 500)
    assert (route.openai_timeout_seconds, route.max_attempts) == (20.5, 7)
    assert (settings.generator, settings.openai_temperature) == ("simulated", 0.5)


@pytest.mark.parametrize(
    ("names", "default"), [(["b", "a"], "b"), (["b", "default"], "default"), (["default", "a"], "default")]
)
def test_the_default_route_is_named_so_or_is_the_first_of_the_file(load, names: list[str], default: str) -> None:
    models = load("".join(f"[models.{name}]\n" for name in names)).models
    assert next(iter(models)) == default
    assert models.keys() == set(names)


def test_a_limit_of_concurrency_holds_for_any_generator(load) -> None:
    content = '[models.own]\ngenerator = "my:Model"\nconcurrency = 2\n[models.other]\ngenerator = "my:Model"\n'
    assert [route.concurrency_ceiling for route in load(content, openai_concurrency=9).models.values()] == [2, None]


class TestKeys:
    CONTENT = REMOTE + 'api_key_env = "OPENAI_API_KEY_2"\n[models.small]\ngenerator = "openai"\nmodel = "s"\n'

    def keys(self, settings: Settings) -> list[str]:
        return [route.openai_api_key.get_secret_value() for route in settings.models.values()]

    def test_a_key_is_read_from_the_environment_variable_that_the_route_names(self, load, monkeypatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY_2", "own")
        assert self.keys(load(self.CONTENT, openai_api_key="shared")) == ["own", "shared"]

    def test_a_key_may_stand_in_a_dotenv_file_where_its_name_is_no_mistake(
        self, write: Write, monkeypatch, tmp_path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / ".env").write_text("OPENAI_API_KEY_2=own\n")
        environment = environment_of(make_settings(models_file=write(self.CONTENT), openai_api_key="shared"))
        for name, value in (environment | {"FLOWER_PASSWORD": "f"}).items():
            monkeypatch.setenv(name, value)
        assert self.keys(load_settings()) == ["own", "shared"]
        load_flower_settings()

    def test_migrations_and_flower_need_neither_the_file_nor_its_keys(
        self, write: Write, monkeypatch, tmp_path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        environment = environment_of(make_settings()) | {"FLOWER_PASSWORD": "f", "WORKER_MODELS": "large"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        for file in (write(self.CONTENT), "missing.toml"):
            monkeypatch.setenv("MODELS_FILE", file)
            load_flower_settings()
            assert list(load_settings_without_models().models) == ["default"]

    def test_a_route_with_an_endpoint_of_its_own_does_not_get_the_key_of_another(self, load) -> None:
        settings = load(REMOTE + 'base_url = "http://127.0.0.1:9/v1"', openai_api_key="shared")
        assert self.keys(settings) == [""]

    def test_keys_do_not_show(self, load, monkeypatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY_2", "hush-hush")
        assert "hush-hush" not in repr(load(self.CONTENT)) + repr(load(self.CONTENT).models)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "has no table [models.NAME]."),
        ("models = 3", "has no table [models.NAME]."),
        ("[models]", "has no table [models.NAME]."),
        ("[models.a\n", "is not valid TOML: Expected ']' at the end of a table declaration (at line 1, column 10)."),
        ("[model.a]\n", "MODELS_FILE: model is not known at the top level; write tables [models.NAME]."),
        ("[models]\na = 3", "MODELS_FILE: models.a is not a table; write [models.a]."),
        (
            "[models.a]\nmodle = 'x'",
            "MODELS_FILE: [models.a] has an unknown key: modle. Known: generator, model, base_",
        ),
        ("[models.gpt-4.1]\n", '(A name with dots needs quotes: [models."gpt-4.1"].)'),
        ("[models.'a b']\n", "MODELS_FILE: 'a b' is not a valid name of a model: use letters, digits and . _ : / -"),
        ("[models.'']\n", "MODELS_FILE: '' is not a valid name"),
        ("[models.'..']\n", "MODELS_FILE: '..' is not a valid name"),
        ("[models.'a/']\n", "MODELS_FILE: 'a/' is not a valid name"),
        ("[models.'a//b']\n", "MODELS_FILE: 'a//b' is not a valid name"),
        ("[models.ä]".replace("ä", "'ä'"), "MODELS_FILE: 'ä' is not a valid name"),
        (f"[models.{'a' * 65}]\n", "is not a valid name"),
        ("[models.a]\ngenerator = 3", "MODELS_FILE: [models.a]: generator must be a text."),
        ("[models.a]\ngenerator = ''", "MODELS_FILE: [models.a]: generator must not be empty."),
        ("[models.a]\nconcurrency = '4'", "[models.a]: concurrency must be a whole number from 1 to 1000000000."),
        ("[models.a]\nconcurrency = true", "[models.a]: concurrency must be a whole number from 1 to 1000000000."),
        ("[models.a]\nconcurrency = 1.5", "[models.a]: concurrency must be a whole number from 1 to 1000000000."),
        ("[models.a]\ncontext_tokens = 0", "[models.a]: context_tokens must be a whole number from 1 to 1000000000."),
        ("[models.a]\ninput_price = -1", "[models.a]: input_price must be a number from 0 to 1000000000."),
        ("[models.a]\ninput_price = nan", "[models.a]: input_price must be a number from 0 to 1000000000."),
        ("[models.a]\noutput_price = '1'", "[models.a]: output_price must be a number from 0 to 1000000000."),
        ("[models.a]\noutput_price = true", "[models.a]: output_price must be a number from 0 to 1000000000."),
        ("[models.a]\ntemperature = 'hot'", "[models.a]: temperature must be a number from 0 to 100."),
        ("[models.a]\nsystem_prompt = 3", "[models.a]: system_prompt must be a text."),
        (REMOTE + "base_url = 'localhost:8000'", "[models.large]: base_url: this is not a URL; write it like"),
        ("[models.a]\ngenerator = 'opnai'", "models.a.generator='opnai' is not a known generator. Known: openai, simu"),
        ("[models.a]\ngenerator = 'openai'", "[models.a] needs a model: the name that its endpoint knows."),
        ("[models.a]\nmodel = 'm'", "[models.a] is simulated and has no model; for a model set generator"),
        (REMOTE + "api_key_env = 'NO_SUCH_KEY'", "NO_SUCH_KEY is not set: MODELS_FILE names it as the key of the mod"),
    ],
)
def test_each_mistake_is_one_sentence(load, content: str, says: str) -> None:
    said = refusal(lambda: load(content))
    assert says in said
    assert len(said.splitlines()) == 1
    assert said.endswith((".", ")"))


def test_all_mistakes_are_named_together(load) -> None:
    said = refusal(lambda: load("[models.a]\ngenerator = 'opnai'\n[models.b]\nconcurrency = 0\nfoo = 1"))
    assert [sentence[:22] for sentence in said.splitlines()] == [
        "MODELS_FILE: models.a.",
        *["MODELS_FILE: [models.b"] * 2,
    ]


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path) -> None:
    missing = tmp_path / "none.toml"
    said = refusal(lambda: make_settings(models_file=str(missing)))
    assert said == f"MODELS_FILE: {missing} cannot be read: No such file or directory."
    (tmp_path / "binary").write_bytes(b"\xff")
    said = refusal(lambda: make_settings(models_file=str(tmp_path / "binary")))
    assert said.endswith("is not valid TOML: it is not UTF-8.")


def test_every_process_reads_the_file_at_its_start(write: Write, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environment_of(make_settings(models_file=write(REMOTE))).items():
        monkeypatch.setenv(name, value)
    assert list(load_settings().models) == ["large"]
    write("[models.a]\nfoo = 1\n[models.b]\nconcurrency = 0")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert [sentence[:22] for sentence in str(refused.value).splitlines()] == [
        "MODELS_FILE: [models.a", "MODELS_FILE: [models.b",
    ]  # fmt: skip


class TestGuide:
    """`docs/models.md`"""

    TEXT = (ROOT / "docs" / "models.md").read_text()

    def test_its_example_is_a_valid_file(self, load, monkeypatch: pytest.MonkeyPatch) -> None:
        (example,) = re.findall(r"```toml\n(\[models\.default\].*?)```", self.TEXT, re.DOTALL)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        models = load(example).models
        assert list(models) == ["default", "large", "qwen3:0.6b"]
        assert (models["large"].concurrency_ceiling, models["qwen3:0.6b"].openai_max_tokens) == (16, 500)

    def test_it_lists_every_key_with_the_setting_that_it_replaces(self) -> None:
        rows = re.findall(r"^\| (`[a-z_]+`.*?) \| (`[A-Z_]+`.*?) \|", self.TEXT, re.MULTILINE)
        listed = {
            key: setting
            for keys, names in rows
            for key, setting in zip(re.findall(r"`(\w+)`", keys), re.findall(r"`(\w+)`", names), strict=True)
        }
        fields = ModelRoute.model_fields
        replaced = {name: (field.serialization_alias or name).upper() for name, field in fields.items()}
        assert listed == replaced | {"api_key_env": "OPENAI_API_KEY"}
        assert {name.lower() for name in listed.values()} <= Settings.model_fields.keys()


class TestWorkerModels:
    CONTENT = "[models.small]\n[models.tiny]\n" + REMOTE + 'base_url = "http://127.0.0.1:9/v1"'

    def test_a_host_answers_the_models_that_worker_models_names(self, load) -> None:
        settings = load(self.CONTENT, worker_models="large, tiny")
        assert list(settings.host_models) == ["tiny", "large"]
        assert list(settings.models) == ["small", "tiny", "large"]
        assert list(load(self.CONTENT).host_models) == ["small", "tiny", "large"]

    def test_an_unknown_model_is_refused(self, load) -> None:
        said = refusal(lambda: load(self.CONTENT, worker_models="small,huge"))
        assert said == "WORKER_MODELS: there is no model huge. Known: small, tiny, large."

    @pytest.mark.parametrize(("models", "pool"), [("", "threads"), ("large", "threads"), ("small,tiny", "prefork")])
    def test_a_worker_answers_in_threads_if_any_of_its_models_is_remote(self, load, models: str, pool: str) -> None:
        settings = load(self.CONTENT, worker_models=models)
        assert choose_pool(settings, check(settings)).name == pool

    def test_a_generator_that_cannot_be_created_is_named_with_its_model(self, load) -> None:
        with pytest.raises(SettingsError, match=r"^The model own: GENERATOR='no\.such:Model' could not be"):
            check(load('[models.own]\ngenerator = "no.such:Model"'))


def test_each_route_has_a_queue(load) -> None:
    queues = {queue.name for queue in make_celery(load("[models.a]\n[models.'b/c:d']")).conf.task_queues}
    assert queues == {QUEUE, queue_name("a"), queue_name("b/c:d")}


def test_an_unknown_model_is_refused_with_the_list(load) -> None:
    with pytest.raises(UnknownModelError, match=re.escape("There is no model huge. Known models: a, large.")):
        ModelChoice(load("[models.a]\n" + REMOTE).models).check("huge", TEXT_ONLY, "")


class TestContext:
    """A request that the model's context cannot hold is refused at its submission."""

    LONG = "x" * 400  # 100 tokens

    def refusal(self, settings: Settings, asked: ModelRequest = TEXT_ONLY, text: str = LONG) -> ContextTooLongError:
        with pytest.raises(ContextTooLongError) as refused:
            ModelChoice(settings.models).check("large", asked, text)
        return refused.value

    def test_the_prompt_may_be_as_long_as_the_context_and_no_longer(self, load) -> None:
        assert ModelChoice(load(REMOTE + "context_tokens = 100").models).check("large", TEXT_ONLY, self.LONG) == "large"
        error = self.refusal(load(REMOTE + "context_tokens = 99"))
        assert str(error) == "The request needs about 100 tokens, and the model large takes 99 (context_tokens)."
        assert error.fields == ["prompt_text"]

    @pytest.mark.parametrize(
        ("asked", "needed"),
        [
            (ModelRequest(messages=[{"role": "user", "content": LONG}]), "200 tokens"),
            (ModelRequest(instructions=LONG), "200 tokens"),
            (ModelRequest(max_output_tokens=50), "100 tokens and up to 50 for the answer"),
        ],
    )
    def test_all_that_is_read_and_written_counts(self, load, asked: ModelRequest, needed: str) -> None:
        error = self.refusal(load(REMOTE + "context_tokens = 149"), asked)
        assert f"about {needed}, and" in str(error)

    def test_the_routes_own_prompt_and_limit_count(self, load) -> None:
        settings = load(REMOTE + f'context_tokens = 249\nsystem_prompt = "{self.LONG}"\nmax_output_tokens = 50')
        assert "about 200 tokens and up to 50 for the answer" in str(self.refusal(settings))
