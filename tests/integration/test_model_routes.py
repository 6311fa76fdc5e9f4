"""Model routes: each has its own queue, limits, pause and prices, and one worker answers all of its host's."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from celery import Celery
from celery.app.control import Inspect
from redis import Redis
from sqlalchemy import text
from structlog.testing import capture_logs

from api.services import Services as ApiServices
from infra.doctor import network
from shared.db.engine import Sessions
from shared.messaging.announcements import Announcer
from shared.messaging.queue import ANSWER_PROMPTS, Queue, make_celery
from shared.messaging.redis import make_redis
from shared.prompts import claims
from shared.prompts.submission import NewPrompt
from shared.settings import Settings
from shared.telemetry import exposition
from tests.support.client import ApiUser, assert_problem
from tests.support.metrics import samples
from tests.support.openai_replies import WORDS
from tests.support.openai_server import MODEL, OpenAIServer
from tests.support.servers import Servers
from worker.maintenance.reaper import Reaper
from worker.services import Services, make_services
from worker.tasks import AttemptFailedError, register

ANSWER = "".join(WORDS)
Submit = Callable[..., int]


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def settings(servers: Servers, database: str, provider: OpenAIServer, tmp_path: Path) -> Settings:
    provider.reset()
    file = tmp_path / "models.toml"
    file.write_text(
        f"""
        [models.small]
        input_price = 1
        output_price = 2

        [models."large/v1"]
        generator = "openai"
        model = "{MODEL}"
        base_url = "{provider.url}"
        concurrency = 1
        input_price = 100
        output_price = 1000
        """
    )
    return servers.settings(database, models_file=str(file), retry_backoff_seconds=0)


@pytest.fixture
def host(settings: Settings) -> Iterator[Services]:
    """The services of a worker."""
    made = make_services(settings)
    yield made
    made.pipeline.sessions.kw["bind"].dispose()


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    with make_redis(settings) as client:
        yield client


@pytest.fixture
def messages(settings: Settings, redis: Redis) -> Queue:
    return Queue(make_celery(settings), redis)


@pytest.fixture
def reaper(settings: Settings, sessions: Sessions, redis: Redis, messages: Queue) -> Reaper:
    return Reaper(settings, sessions, messages, Announcer(redis))


@pytest.fixture
def submit(services: ApiServices, alice: ApiUser) -> Submit:
    """Submit a prompt of alice to a model. Returns its id."""

    def submit(model: str, text: str = "Why tides?", **columns: object) -> int:
        return services.submissions.store(prompt(alice, model, text, **columns), None).prompt.id

    return submit


def prompt(user: ApiUser, model: str, text: str = "Why tides?", **columns: object) -> NewPrompt:
    return NewPrompt(user.id, text, websocket=False, request_id="r", route=model, **columns)


def let_vanish(sessions: Sessions, prompt_id: int, model: str = "gone", *, hours: float = 0) -> int:
    """Let the model of a prompt be one that is not in the file, and the prompt be submitted this long ago."""
    with sessions.begin() as session:
        session.execute(
            text("UPDATE prompts SET route = :model, queued_at = now() - :hours * interval '1 h' WHERE id = :id"),
            {"model": model, "hours": hours, "id": prompt_id},
        )
    return prompt_id


def lengths(messages: Queue) -> tuple[int | None, int | None]:
    return messages.length("small"), messages.length("large/v1")


def answer(host: Services, model: str, count: object = 10) -> object:
    """Run the task that answers prompts of a model, as a worker of this host does."""
    celery = Celery(set_as_current=False)
    register(celery, lambda: host)
    return celery.tasks[ANSWER_PROMPTS](model, count)


def test_one_worker_answers_the_prompts_of_each_model_by_its_generator(
    submit: Submit, alice: ApiUser, host: Services, provider: OpenAIServer
) -> None:
    small, large = submit("small"), submit("large/v1")
    assert answer(host, "large/v1") == {"completed": [large], "not_completed": []}
    assert answer(host, "small") == {"completed": [small], "not_completed": []}
    assert alice.show(large)["response_text"] == ANSWER
    assert "simulated" in alice.show(small)["response_text"]
    assert [alice.show(each)["model"] for each in (small, large)] == ["small", "large/v1"]
    assert [alice.show(each)["provider_model"] for each in (small, large)] == ["simulated-1", MODEL]
    assert len(provider.requests) == 1


def test_a_prompt_without_a_model_takes_the_first_route(alice: ApiUser, host: Services, messages: Queue) -> None:
    prompt_id = alice.submit()
    assert lengths(messages) == (1, 0)
    answer(host, "small")
    assert (alice.show(prompt_id)["model"], alice.show(prompt_id)["status"]) == ("small", "completed")


def test_a_submission_wakes_up_workers_of_its_model_only(submit: Submit, messages: Queue) -> None:
    submit("large/v1")
    assert lengths(messages) == (0, 1)


def test_the_pipelines_of_a_worker_share_what_does_not_depend_on_the_model(host: Services) -> None:
    small, large = host.pipelines.values()
    for shared in (
        "sessions",
        "autocommit_engine",
        "embedders",
        "store",
        "semantic_cache",
        "deltas",
        "leases",
        "queue",
    ):
        assert getattr(small, shared) is getattr(large, shared)
    assert (small.ceiling, large.ceiling) == (None, 1)


def test_a_host_refuses_messages_of_models_that_it_does_not_answer(
    submit: Submit, alice: ApiUser, settings: Settings
) -> None:
    large = submit("large/v1")
    only_small = make_services(settings.model_copy(update={"worker_models": ("small",)}))
    with capture_logs() as logs:
        for model in ("large/v1", "gone", ["small"], None):
            assert answer(only_small, model) is None  # type: ignore[arg-type]
    assert [line["event"][:15] for line in logs] == ["message refused"] * 4
    assert list(only_small.pipelines) == ["small"]
    assert alice.show(large)["status"] == "queued"
    only_small.pipeline.sessions.kw["bind"].dispose()


def test_one_model_goes_on_while_the_provider_of_another_is_unavailable(
    submit: Submit, alice: ApiUser, host: Services, provider: OpenAIServer, services: ApiServices
) -> None:
    large, small = submit("large/v1"), submit("small")
    with provider.stopped(), pytest.raises(AttemptFailedError):
        answer(host, "large/v1", 1)
    answer(host, "small")
    waits = alice.show(large)
    assert (waits["status"], waits["waiting_for"]["reason"]) == ("queued", "provider")
    assert alice.show(small)["status"] == "completed"
    shown = samples(exposition.render("", services.service_metrics).body.decode())
    assert shown['promptwire_provider_paused{route="large/v1"}'] == 1
    assert shown['promptwire_provider_paused{route="small"}'] == 0
    assert shown["promptwire_prompts_waiting_for_provider"] == 1


def test_a_limit_of_concurrency_is_that_of_its_model(
    submit: Submit, host: Services, sessions: Sessions, services: ApiServices
) -> None:
    for model in ("large/v1", "large/v1", "small", "small"):
        submit(model)
    pipelines = host.pipelines
    with sessions.begin() as session:
        taken = [
            len(claims.claim(session, route, 5, pipelines[route].lease, ceiling=pipelines[route].ceiling).claims)
            for route in ("large/v1", "small")
        ]
    assert taken == [1, 2]
    shown = samples(exposition.render("", services.service_metrics).body.decode())
    assert shown['promptwire_route_concurrency{route="large/v1"}'] == 1
    assert 'promptwire_route_concurrency{route="small"}' not in shown
    assert [shown[f'promptwire_route_running{{route="{route}"}}'] for route in ("large/v1", "small")] == [1, 2]
    assert [shown[f'promptwire_route_queue_depth{{route="{route}"}}'] for route in ("large/v1", "small")] == [1, 0]


def test_usage_costs_what_its_model_costs(submit: Submit, alice: ApiUser, host: Services) -> None:
    ids = {model: submit(model) for model in ("small", "large/v1")}
    for model in ids:
        answer(host, model)
    rows = {row["model"]: row for row in alice.get("/usage/?by=model").json["rows"]}
    for model, (read, written) in {"small": (1, 2), "large/v1": (100, 1000)}.items():
        used = alice.show(ids[model])["usage"]
        cost = Decimal(used["prompt_tokens"] * read + used["completion_tokens"] * written) / 1_000_000
        assert Decimal(str(rows[model]["cost"])) == cost > 0


def test_a_submission_reserves_what_its_model_may_use(
    submit: Submit, make_app: Callable[..., tuple], sessions: Sessions, alice: ApiUser
) -> None:
    _, services = make_app(user_monthly_tokens=100_000, reserved_output_tokens=700)
    for model in ("small", "large/v1"):
        services.submissions.store(prompt(alice, model, "Hi"), None)
    with sessions() as session:
        reserved = dict(session.execute(text("SELECT route, reserved_tokens FROM prompts")).all())
    assert reserved["large/v1"] == 1 + 700  # the prompt, and an answer of unknown length
    assert 1 < reserved["small"] < 100  # the simulated answer


def test_a_key_may_be_limited_to_any_of_the_models(alice: ApiUser) -> None:
    assert alice.create_key(models=["large/v1"])["models"] == ["large/v1"]
    problem = assert_problem(alice.post("/auth/keys/", json={"name": "k", "models": ["default"]}), 400)
    assert problem["errors"][0]["message"] == "There is no model 'default'. There are: large/v1, small."


def test_the_answer_of_another_model_is_never_reused(
    submit: Submit, alice: ApiUser, host: Services, provider: OpenAIServer
) -> None:
    first = submit("small", cache="allowed")
    answer(host, "small")
    again, other = submit("small", cache="allowed"), submit("large/v1", cache="allowed")
    for model in ("small", "large/v1"):
        answer(host, model)
    assert alice.show(again)["cached_from"] == first
    assert (alice.show(other)["cached_from"], alice.show(other)["response_text"]) == (None, ANSWER)
    assert len(provider.requests) == 1


class TestReaper:
    """The reaper looks after every model of the file, also those that its host does not answer."""

    def test_lost_messages_are_replaced_for_each_model(
        self, submit: Submit, reaper: Reaper, messages: Queue, redis: Redis
    ) -> None:
        submit("small")
        submit("large/v1")
        redis.delete("prompts.small", "prompts.large/v1")
        reaper.round()
        assert lengths(messages) == (1, 1)
        redis.delete("prompts.large/v1")
        reaper.round()
        assert lengths(messages) == (1, 1)

    def test_the_probe_wakes_up_workers_of_the_model_whose_pause_is_over(
        self, submit: Submit, reaper: Reaper, messages: Queue, redis: Redis, sessions: Sessions
    ) -> None:
        submit("small")
        submit("large/v1")
        redis.delete("prompts.small", "prompts.large/v1")
        with sessions.begin() as session:
            session.execute(
                text("""
                    INSERT INTO routes (route, paused_until, unavailable_since) VALUES
                        ('large/v1', now() - interval '1 s', now()), ('small', now() + interval '1 h', now()),
                        ('gone', now() - interval '1 s', now())
                    ON CONFLICT (route) DO UPDATE SET paused_until = excluded.paused_until
                """)
            )
        reaper.start_probes()
        assert lengths(messages) == (0, 1)

    def test_prompts_of_a_model_that_is_gone_fail_after_the_providers_patience(
        self, submit: Submit, alice: ApiUser, reaper: Reaper, sessions: Sessions
    ) -> None:
        late = let_vanish(sessions, submit("small"), hours=2)
        early = let_vanish(sessions, submit("small"))
        small = let_vanish(sessions, submit("small"), "small", hours=2)
        reaper.round()
        assert [alice.show(each)["status"] for each in (late, early, small)] == ["failed", "queued", "queued"]
        assert alice.show(late)["error"] == "Gave up: the model gone has not been there for 3600 seconds."

    def test_prompts_of_an_unknown_model_stay_while_a_worker_answers_that_model(
        self, submit: Submit, alice: ApiUser, reaper: Reaper, sessions: Sessions, host: Services
    ) -> None:
        _, waits = (let_vanish(sessions, submit("small"), "new", hours=2) for _ in range(2))
        with sessions.begin() as session:
            claims.claim(session, "new", 1, host.pipeline.lease)
        reaper.round()
        assert alice.show(waits)["status"] == "queued"


def test_a_prompt_of_a_model_that_is_gone_cannot_be_retried(submit: Submit, alice: ApiUser, sessions: Sessions) -> None:
    prompt_id = let_vanish(sessions, submit("small"))
    alice.post(f"/prompts/{prompt_id}/cancel/")
    problem = assert_problem(alice.post(f"/prompts/{prompt_id}/retry/"), 400)
    assert problem["errors"][0]["message"] == "There is no model gone any more. Submit a new prompt."


def test_without_workers_of_a_model_its_prompts_wait_visibly(
    submit: Submit, alice: ApiUser, services: ApiServices
) -> None:
    prompt_id = submit("large/v1")
    assert (alice.show(prompt_id)["status"], alice.show(prompt_id)["position"]) == ("queued", 1)
    shown = samples(exposition.render("", services.service_metrics).body.decode())
    assert shown['promptwire_route_queue_depth{route="large/v1"}'] == 1
    assert shown['promptwire_route_oldest_queued_seconds{route="large/v1"}'] > 0
    assert shown['promptwire_route_queue_depth{route="small"}'] == 0


def test_the_doctor_names_models_without_workers_and_prompts_without_a_model(
    submit: Submit, sessions: Sessions, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_vanish(sessions, submit("small"))
    (gone,) = network.models(settings)
    assert gone.problem == "Prompts wait for the model gone, which is not there (any more)."
    assert "PROVIDER_PATIENCE_SECONDS (3600)" in gone.remedy
    answers = {"a@host": [{"name": "prompts"}, {"name": "prompts.small"}]}
    monkeypatch.setattr(Inspect, "active_queues", lambda _: answers)
    (missing,) = network.workers(settings)
    assert missing.problem == "No worker answers the model large/v1: its prompts are accepted but stay queued."
