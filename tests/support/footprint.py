"""A user whose texts are wherever the service keeps any."""

from sqlalchemy import insert, text

from api.services import Services
from shared.db.engine import Sessions
from shared.db.models import ApiKey, Webhook
from shared.messaging.announcements import Announcement
from shared.messaging.partial_text import Write
from shared.prompts import submission
from shared.prompts.submission import NewPrompt
from tests.support import lifecycle
from tests.support.client import PASSWORD, ApiUser
from worker.services import Services as WorkerServices

MARKER = "xylophone"
NAME = f"{MARKER}-alice"
COUNT = 1_000


class Footprint:
    """A user whose texts are wherever the service keeps any: 1,000 prompts, and everything around them."""

    def __init__(self, user: ApiUser, worker: WorkerServices, services: Services, sessions: Sessions) -> None:
        self.user, self._worker, self._services = user, worker, services
        headers = {"Idempotency-Key": MARKER, "X-Request-ID": MARKER, "User-Agent": MARKER}
        user._client.post("/login/", json={"username": NAME, "password": PASSWORD}, headers={"User-Agent": MARKER})
        user.post("/prompts/", json={"prompt_text": f"What is a {MARKER}?", "websocket": True}, headers=headers)
        new = [NewPrompt(user.id, f"Explain {MARKER} {i}", True, f"{MARKER}-{i}") for i in range(COUNT - 3)]
        with sessions.begin() as session:
            session.execute(insert(ApiKey).values(self._key()))
            session.execute(insert(Webhook).values(self._webhook()))
            submission.submit(session, new, grace=lifecycle.MINUTE, attempt_limit=5)
        while worker.pipeline.process(COUNT).completed:
            pass
        with sessions.begin() as session:
            lifecycle.submit(session, user.id, f"A queued {MARKER}")
            running = lifecycle.submit(session, user.id, f"A running {MARKER}")
            self.running = lifecycle.claim(session, running.id)
            session.execute(text("UPDATE feed SET error = :marker WHERE seq % 10 = 0"), {"marker": MARKER})
            session.execute(text("UPDATE prompts SET error = :marker WHERE id % 10 = 0"), {"marker": MARKER})
        write = Write(user.id, 0, MARKER, Announcement(None, running.id, self.running.attempt))
        assert services.partial_text.write([write]) == [True]

    def _key(self) -> dict:
        return {"user_id": self.user.id, "name": MARKER, "key_hash": b"h", "prefix": "pw_x", "scopes": ["admin"]}

    def _webhook(self) -> dict:
        url = f"https://{MARKER}.example/"
        return {"user_id": self.user.id, "url": url, "description": MARKER, "secret": MARKER.encode()}

    def load_replicas(self) -> None:
        """Search in an API process, by words too, and in a worker process."""
        assert len(self.user.get(f"/prompts/similar/?prompt={MARKER}&limit=50&mode=text").json) == 50
        found = self.user.get(f"/prompts/similar/?prompt={MARKER}&limit=50").json
        assert len(found) == 50
        store = self._worker.pipeline.store
        assert store.search(self.user.id, lambda embedder: embedder.embed([MARKER])[0], 5).matches

    def replicas(self) -> list[int]:
        """The users whose replicas these two processes hold."""
        stores = (self._services.store, self._worker.pipeline.store)
        return [user_id for store in stores for user_id in getattr(store, "_slots", [])]
