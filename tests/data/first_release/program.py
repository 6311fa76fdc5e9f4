"""A program for the code of the first release, which is not in this checkout: see `README.md`.

    python program.py migrate
    python program.py fill            store typical data, in an empty database
    python program.py work [FILE]     do what users, a worker and a reaper do, with a database that has that data

It runs in a folder with that code, and takes DATABASE_URL and REDIS_URL from the environment. `work` writes its
statements to FILE as JSON: the SQL, and how many rows it returned or changed.
"""

# ruff: noqa: I001  (its imports are those of another release)

import json
import os
import sys
from datetime import timedelta

from sqlalchemy import Engine, event, text

from api.app import create_app
from api.services import make_services
from shared import attempts, feed, library, migrations, users
from shared.events import Announcer
from shared.queue import Queue, make_celery
from shared.redis import make_redis
from shared.settings import Settings
from worker.reaper import Reaper
from worker.services import make_services as make_worker

PASSWORD = "correct horse battery"
MINUTE = timedelta(minutes=1)


class Release:
    """An API process, a worker's pipeline and a reaper."""

    def __init__(self) -> None:
        self.settings = Settings(
            _env_file=None, app_env="test", jwt_secret_key="of the first release " * 2, prompt_rate_limit="1000/second"
        )
        services = make_services(self.settings)
        self.client = create_app(self.settings, services).test_client()
        self.pipeline = make_worker(self.settings).pipeline
        self.sessions = self.pipeline.sessions
        redis = make_redis(self.settings)
        self.reaper = Reaper(self.settings, self.sessions, Queue(make_celery(self.settings), redis), Announcer(redis))
        self._access = self._refresh = ""

    def register(self, name: str) -> None:
        assert self._post("/auth/register/", username=name, password=PASSWORD).status_code == 201

    def log_in(self, name: str) -> None:
        tokens = self._post("/login/", username=name, password=PASSWORD).json
        self._access, self._refresh = tokens["access"], tokens["refresh"]

    def refresh(self) -> None:
        tokens = self._post("/auth/refresh/", refresh=self._refresh).json
        self._access, self._refresh = tokens["access"], tokens["refresh"]

    def log_out(self) -> None:
        assert self._post("/auth/logout/", refresh=self._refresh).status_code < 300

    def call(self, method: str, path: str, **options: object):
        headers = {"Authorization": f"Bearer {self._access}"} | options.pop("headers", {})
        response = self.client.open(path, method=method, headers=headers, **options)
        assert response.status_code < 300, (path, response.status_code, response.text)
        return response.json

    def submit(self, prompt_text: str, *, key: str | None = None, **fields: object) -> int:
        headers = {"Idempotency-Key": key} if key else {}
        body = {"prompt_text": prompt_text, "websocket": True} | fields
        return self.call("POST", "/prompts/", headers=headers, json=body)["id"]

    def claim(self, prompt_id: int, lease: timedelta = MINUTE) -> attempts.Claim:
        with self.sessions.begin() as session:
            (claim,) = attempts.claim(session, [prompt_id], lease)
        return claim

    def do(self, step, *arguments: object, **options: object) -> None:
        with self.sessions.begin() as session:
            step(session, *arguments, **options)

    def _post(self, path: str, **body: str):
        return self.client.post(path, json=body)


def fill(release: Release) -> None:
    """Two users, with prompts in every state."""
    for name in ("bob", "alice"):
        release.register(name)
        release.log_in(name)
        answered = [release.submit(each) for each in ("What causes ocean tides?", "Suggest a name for my cat")]
        release.pipeline.process(answered)
    release.log_out()
    release.log_in("alice")
    deleted = release.submit("To be deleted")
    release.pipeline.process([deleted])
    release.call("DELETE", f"/prompts/{deleted}/")
    release.submit("Queued, with a key", key="key-1", history=2)
    release.call("POST", f"/prompts/{release.submit('Cancelled')}/cancel/")
    release.do(attempts.fail, release.claim(release.submit("Failed")), "The provider refused it.")
    release.do(attempts.postpone, release.claim(release.submit("In a backoff")), timedelta(0))
    release.claim(release.submit("Its worker has died"), timedelta(0))
    last = release.submit("Its worker has died in the last attempt")
    release.do(lambda session: session.execute(text(f"UPDATE prompts SET attempt_limit = 1 WHERE id = {last}")))  # noqa: S608
    release.claim(last, timedelta(0))
    release.claim(release.submit("Being answered"), timedelta(minutes=30))


def work(release: Release) -> None:
    """Every statement of an API process, a worker and a reaper, as far as one user and one worker lead to them."""
    release.log_in("alice")
    release.refresh()
    listed = {each["prompt_text"]: each["id"] for each in release.call("GET", "/prompts/?limit=50")}
    assert len(listed) == 9
    for prompt_id in listed.values():
        release.call("GET", f"/prompts/{prompt_id}/")
    assert release.submit("Queued, with a key", key="key-1", history=2) == listed["Queued, with a key"]
    release.call("POST", f"/prompts/{listed['Cancelled']}/retry/")
    release.call("DELETE", f"/prompts/{listed['Suggest a name for my cat']}/")
    new = [release.submit(f"New {number}", key=f"new-{number}") for number in range(3)]
    release.call("POST", f"/prompts/{new[0]}/cancel/")
    held = release.claim(new[1])
    release.do(attempts.renew, [(held.id, held.attempt)], MINUTE)
    release.do(attempts.postpone, held, timedelta(0))
    release.do(attempts.hand_back, [release.claim(new[2])])
    release.do(attempts.wait_for_provider, release.claim(new[2]), timedelta(0), patience=MINUTE)
    release.reaper.round()
    release.do(attempts.fail, release.claim(new[1]), "No.")
    release.pipeline.process([*listed.values(), *new])
    found = release.call("GET", "/prompts/similar/?prompt=What causes ocean tides?&limit=1")
    assert "What causes ocean tides?" in json.dumps(found)
    with release.sessions() as session:
        alice = users.find(session, "alice")
        assert feed.position(session, alice.id, 0)[1]
        assert len(feed.replay(session, alice.id, 0).endings) > 5
        feed.newer(session, {alice.id: 0})
        users.of_ended_logins(session, MINUTE)
        left = [row for row in library.page(session, alice.id, limit=50) if row.status in ("queued", "processing")]
    assert [row.prompt_text for row in left] == ["Being answered"]
    release.log_out()


def migrate(release: Release) -> None:
    migrations.upgrade(release.sessions.kw["bind"])


def record(statements: list[tuple[str, int]]) -> None:
    """Append each statement from now on, repeated queries only once."""

    def note(_connection: object, cursor, *_: object) -> None:
        statement = (cursor.query.decode(), cursor.rowcount)
        if statement not in statements or not statement[0].startswith("SELECT"):
            statements.append(statement)

    event.listen(Engine, "after_cursor_execute", note)


if __name__ == "__main__":
    recorded: list[tuple[str, int]] = []
    if len(sys.argv) > 2:
        record(recorded)
    {"migrate": migrate, "fill": fill, "work": work}[sys.argv[1]](Release())
    if recorded:
        with open(sys.argv[2], "w") as file:  # noqa: PTH123
            json.dump(recorded, file, indent=0)
    os._exit(0)
