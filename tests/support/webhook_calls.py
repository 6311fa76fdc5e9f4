"""Webhooks of an `ApiUser`, through HTTP, and their deliveries in the database."""

from sqlalchemy import text

from shared.db.engine import Sessions
from tests.support.client import ApiUser
from worker.pipeline import Pipeline

URL = "https://hooks.example/promptwire"


class Log:
    """The deliveries in the database, and what a worker would do with them."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def execute(self, statement: str, **parameters: object) -> list:
        with self._sessions.begin() as session:
            result = session.execute(text(statement), parameters)
            return result.all() if result.returns_rows else []

    def events(self, webhook_id: int) -> list[tuple]:
        """Number, type, status and attempts of each delivery."""
        return [
            tuple(row)
            for row in self.execute(
                "SELECT seq, event, status, attempts FROM webhook_deliveries WHERE webhook_id = :id ORDER BY seq",
                id=webhook_id,
            )
        ]

    def end_all(self, status: str = "delivered", *, attempts: int = 1) -> None:
        """End what is pending, with attempts that took half a second each."""
        for (delivery_id,) in self.execute("SELECT id FROM webhook_deliveries WHERE status = 'pending'"):
            for number in range(1, attempts + 1):
                self.execute(
                    "INSERT INTO webhook_attempts (delivery_id, number, status_code, error, seconds) "
                    "VALUES (:id, :number, 500, 'The response is 500.', 0.5)",
                    id=delivery_id,
                    number=number,
                )
        self.execute(
            "UPDATE webhook_deliveries SET status = :status, attempts = :attempts, ended_at = now() "
            "WHERE status = 'pending'",
            status=status,
            attempts=attempts,
        )


def create(user: ApiUser, **fields: object) -> dict:
    response = user.post("/webhooks/", json={"url": URL} | fields)
    assert response.status_code == 201, response.text
    return response.json


def change(user: ApiUser, webhook: dict, **fields: object) -> dict:
    response = user.call("PATCH", f"/webhooks/{webhook['id']}/", json=fields)
    assert response.status_code == 200, response.text
    return response.json


def show(user: ApiUser, webhook: dict) -> dict:
    return user.get(f"/webhooks/{webhook['id']}/").json


def deliveries(user: ApiUser, webhook: dict, query: str = "") -> list[dict]:
    return user.get(f"/webhooks/{webhook['id']}/deliveries/{query}").json


def act(user: ApiUser, webhook: dict, action: str, **body: object):
    return user.post(f"/webhooks/{webhook['id']}/{action}/", **({"json": body} if body else {}))


def recover(user: ApiUser, webhook: dict, since: int) -> int:
    response = act(user, webhook, "recover", since=since)
    assert response.status_code == 202, response.text
    return response.json["deliveries"]


def finish(user: ApiUser, worker: Pipeline, count: int = 1) -> list[int]:
    """Submit prompts, and answer them in this order. Returns their ids."""
    ids = []
    for number in range(count):
        ids.append(user.submit(f"tide {number}"))
        worker.process(1)
    return ids
