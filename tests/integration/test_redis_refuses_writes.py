"""Redis that answers, but accepts no writes: the service goes on as if Redis were unavailable."""

from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from redis.exceptions import ReadOnlyError
from structlog.testing import capture_logs

from api.services import Services
from infra.doctor import stores
from shared.messaging.queue import Queue, make_celery
from shared.messaging.redis import make_redis, write_problem
from shared.settings import Settings
from tests.support.client import PASSWORD, ApiUser
from tests.support.servers import MAX_WAIT_SECONDS, Servers, wait_until
from worker.pipeline import Pipeline

SENTENCES = {
    "replica": "Redis is a read-only replica",
    "memory": "Redis is out of memory",
    "disk": "Redis cannot write to its disk and refuses writes",
}


@pytest.fixture(params=SENTENCES)
def why(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    with make_redis(settings) as client:
        yield client


def test_every_request_works_while_redis_refuses_writes(servers: Servers, alice: ApiUser, why: str) -> None:
    credentials = {"username": "alice", "password": PASSWORD}
    with servers.redis_refusing(why):
        assert alice.post("/prompts/", json={"prompt_text": "Hi"}).status_code == 202
        assert alice.get("/prompts/").status_code == 200
        assert alice.get("/prompts/similar/?prompt=Hi").status_code == 200
        assert alice.post("/login/", json=credentials).status_code == 200
        assert alice.post("/login/", json=credentials | {"password": "a wrong one"}).status_code == 401
        assert alice.post(f"/prompts/{alice.submit()}/cancel/").status_code == 200
        assert alice.post("/auth/logout/", json={"refresh": alice.tokens["refresh"]}).status_code == 204


def test_limits_are_counted_in_memory_while_redis_refuses_writes(
    servers: Servers, make_app: Callable, alice: ApiUser, why: str
) -> None:
    app, _ = make_app(prompt_rate_limit="2/minute")
    alice._client = app.test_client()
    with servers.redis_refusing(why):
        statuses = [alice.post("/prompts/", json={"prompt_text": "Hi"}).status_code for _ in range(3)]
    assert statuses == [202, 202, 429]


def test_registrations_are_limited_while_redis_refuses_writes(servers: Servers, make_app: Callable, why: str) -> None:
    """By flask-limiter, in production."""
    app, _ = make_app(app_env="prod", registration=True)
    client = app.test_client()
    with servers.redis_refusing(why):
        bodies = [{"username": f"user-{i}", "password": PASSWORD} for i in range(11)]
        statuses = [client.post("/auth/register/", json=body).status_code for body in bodies]
    assert statuses == [201] * 10 + [429]


def test_readyz_is_degraded_and_names_the_cause_while_redis_refuses_writes(
    servers: Servers, alice: ApiUser, why: str
) -> None:
    with servers.redis_refusing(why):
        response = alice.get("/readyz")
        assert (response.status_code, response.json["status"]) == (200, "degraded")
        assert response.json["checks"] == {"postgres": "ok", "redis": SENTENCES[why]}
    wait_until(lambda: alice.get("/readyz").json["status"] == "ok", what="recovering")


def test_the_doctor_names_the_cause(servers: Servers, settings: Settings, why: str) -> None:
    with servers.redis_refusing(why):
        assert any(SENTENCES[why] in found.problem for found in stores.redis(settings))
    assert not any(SENTENCES[why] in found.problem for found in stores.redis(settings))


def test_after_a_refusal_nothing_is_sent_until_redis_accepts_a_write(
    servers: Servers, settings: Settings, redis: Redis, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    celery = make_celery(settings)
    queue = Queue(celery, redis)
    assert queue.wake("default", 1)
    probes: list[str | None] = []
    monkeypatch.setattr("shared.messaging.queue.PROBE_SECONDS", 0.01)
    monkeypatch.setattr(
        "shared.messaging.queue.write_problem", lambda client: probes.append(write_problem(client)) or probes[-1]
    )
    with servers.redis_refusing(why), capture_logs() as logs:
        assert not queue.wake("default", 1)
        wait_until(lambda: len(probes) >= 3, what="probing")
        assert not queue.is_available
        assert not queue.wake("default", 1)
    sent = [line["error"] for line in logs if line["event"] == "broker unavailable, message not sent"]
    assert sent == [SENTENCES[why]]
    wait_until(lambda: queue.wake("default", 1), what="recovering")
    celery.close()


def test_a_prompt_is_answered_while_redis_refuses_writes(
    servers: Servers, alice: ApiUser, worker: Pipeline, services: Services, why: str
) -> None:
    prompt_id = alice.submit()
    with servers.redis_refusing(why):
        assert worker.process(1).completed == [prompt_id]
        with services.relay.subscribe(alice.id) as subscription:  # the relay reads the feed
            assert subscription.get(timeout=MAX_WAIT_SECONDS) is not None
    assert alice.show(prompt_id)["attempt"] == 1


def test_a_client_reconnects_after_its_server_has_become_a_replica(servers: Servers, redis: Redis) -> None:
    """The name in REDIS_URL may lead to another server by now."""
    before = redis.client_id()
    with servers.redis_refusing("replica"), pytest.raises(ReadOnlyError):
        redis.set("key", "value")
    assert redis.client_id() != before


def test_a_pipeline_is_read_to_its_end_before_the_client_reconnects(servers: Servers, redis: Redis) -> None:
    redis.set("key", "value")
    with servers.redis_refusing("replica"), redis.pipeline(transaction=False) as pipeline:
        pipeline.set("key", "other").get("key").publish("channel", "message")
        refused, *others = pipeline.execute(raise_on_error=False)
    assert isinstance(refused, ReadOnlyError)
    assert others == ["value", 0]
