"""A queued prompt shows its position in the queue."""

from shared.db.engine import Sessions
from tests.support.client import ApiUser
from tests.support.user_queue import UserQueue
from worker.pipeline import Pipeline


def test_every_queued_prompt_shows_its_position_and_a_claimed_one_none(
    alice: ApiUser, bob: ApiUser, worker: Pipeline
) -> None:
    ids = [alice.submit(f"{i}") for i in range(3)]
    his = bob.submit("his")
    assert [alice.show(prompt_id)["position"] for prompt_id in ids] == [1, 3, 4]
    assert bob.show(his)["position"] == 2
    assert [prompt["position"] for prompt in alice.get("/prompts/").json] == [4, 3, 1]
    worker.process(1)
    assert [alice.show(prompt_id)["position"] for prompt_id in ids] == [None, 2, 3]


def test_a_submission_shows_its_position(alice: ApiUser, bob: ApiUser) -> None:
    shown = [alice.post("/prompts/", json={"prompt_text": f"{i}"}).json["position"] for i in range(3)]
    assert shown == [1, 2, 3]
    assert bob.post("/prompts/", json={"prompt_text": "his"}).json["position"] == 2


def test_a_submission_behind_many_shows_its_position_from_the_next_read_on(
    alice: ApiUser, queue: UserQueue, sessions: Sessions
) -> None:
    for name in range(101):
        queue.submit(f"user{name}")
    response = alice.post("/prompts/", json={"prompt_text": "Hi"})
    assert response.json["position"] is None
    assert alice.show(response.json["id"])["position"] == 102


def test_a_poll_is_answered_again_when_the_position_has_changed(alice: ApiUser, worker: Pipeline) -> None:
    alice.submit("first")
    prompt_id = alice.submit("second")
    before = alice.get(f"/prompts/{prompt_id}/").headers["ETag"]
    assert alice.get(f"/prompts/{prompt_id}/", headers={"If-None-Match": before}).status_code == 304
    worker.process(1)
    assert alice.get(f"/prompts/{prompt_id}/", headers={"If-None-Match": before}).json["position"] == 1
