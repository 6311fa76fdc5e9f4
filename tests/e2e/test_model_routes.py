"""Model routes through worker processes: a host takes only the messages of its models."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from redis import RedisError
from sqlalchemy import text

from api.intake.submissions import Submissions
from shared.accounts import users
from shared.db.engine import Sessions, make_engine, make_sessions
from shared.messaging.queue import QUEUE, Queue, make_celery, queue_name
from shared.messaging.redis import make_redis
from shared.prompts.submission import NewPrompt
from shared.settings import Settings
from tests.support import processes
from tests.support.client import PASSWORD
from tests.support.openai_server import MODEL, OpenAIServer
from tests.support.servers import Servers, wait_until


@pytest.fixture(scope="module")
def settings(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    file: Path = tmp_path_factory.mktemp("models") / "models.toml"
    with OpenAIServer() as provider, servers.database() as name:
        remote = f'generator = "openai"\nmodel = "{MODEL}"\nbase_url = "{provider.url}"'
        file.write_text(f'[models.small]\n[models."org/large-2.0"]\n{remote}\n')
        yield servers.settings(name, models_file=str(file), reaper_seconds=0.2)


def active_queues(celery: Celery) -> dict[str, Any]:
    """What the workers say they take messages from."""
    found: dict[str, Any] = {}

    def have_answered() -> bool:
        with suppress(RedisError):  # kombu does not reconnect while it waits for answers
            found.update(celery.control.inspect(timeout=5).active_queues() or {})
        return bool(found)

    wait_until(have_answered, what="the answer of a worker")
    return found


def test_a_host_takes_only_the_messages_of_the_models_in_worker_models(settings: Settings, sessions: Sessions) -> None:
    celery = make_celery(settings)
    queue, engine = Queue(celery, make_redis(settings)), make_engine(settings, application_name="test", autocommit=True)
    submissions = Submissions(settings, make_sessions(engine), engine, queue, make_redis(settings))
    with sessions.begin() as session:
        user_id = users.create(session, "alice", PASSWORD).id

    def submit(model: str) -> int:
        new = NewPrompt(user_id, "Why tides?", websocket=False, request_id="r", route=model)
        return submissions.store(new, None).prompt.id

    def is_completed(prompt_id: int) -> bool:
        with engine.connect() as connection:
            status = connection.scalar(text("SELECT status FROM prompts WHERE id = :id"), {"id": prompt_id})
        return status == "completed"

    only_large = settings.model_copy(update={"worker_models": ("org/large-2.0",)})
    small, large = submit("small"), submit("org/large-2.0")
    with processes.worker(only_large, name="large"):
        wait_until(lambda: is_completed(large), what="the answer of the large model")
        (queues,) = active_queues(celery).values()
        assert {each["name"] for each in queues} == {QUEUE, queue_name("org/large-2.0")}
        assert not is_completed(small)
        assert queue.length("small") == 1
        with processes.worker(settings, name="all"):
            wait_until(lambda: is_completed(small), what="the answer of the small model")
    engine.dispose()
