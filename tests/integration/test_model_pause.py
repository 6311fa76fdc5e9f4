"""The pause of a model by an operator: its prompts wait, say why, and none is lost."""

import dataclasses
from datetime import timedelta

import pytest
from sqlalchemy import text

from shared.db.engine import Sessions
from shared.errors import ProviderUnavailableError
from shared.messaging.announcements import Announcer
from shared.messaging.redis import make_redis
from shared.prompts import claims, provider_pause
from shared.settings import Settings
from tests.support.client import ApiUser, assert_problem
from tests.support.lifecycle import RecordingQueue
from tests.support.providers import Script
from worker.maintenance.reaper import Reaper
from worker.pipeline import Pipeline
from worker.provider_status import ProviderStatus

MINUTE = timedelta(minutes=1)
REASON = "The contract ends."


def pause(admin: ApiUser, model: str = "default", **body: object) -> dict:
    response = admin.post(f"/admin/models/{model}/pause/", json=body)
    assert response.status_code == 200, response.text
    return response.json


def resume(admin: ApiUser, model: str = "default") -> dict:
    response = admin.post(f"/admin/models/{model}/resume/")
    assert response.status_code == 200, response.text
    return response.json


class AvailableQueue(RecordingQueue):
    is_available = True


@pytest.fixture
def reaper(settings: Settings, sessions: Sessions) -> Reaper:
    return Reaper(
        settings.model_copy(update={"provider_patience_seconds": 1}),
        sessions,
        AvailableQueue(),
        Announcer(make_redis(settings)),
    )


def test_no_prompt_of_a_paused_model_is_claimed_until_it_is_resumed(
    admin: ApiUser, alice: ApiUser, worker: Pipeline
) -> None:
    early = alice.submit()
    pause(admin, reason=REASON)
    late = alice.submit()
    worker.process(2)
    for prompt_id, position in ((early, 1), (late, 2)):
        shown = alice.show(prompt_id)
        assert (shown["status"], shown["position"]) == ("queued", position)
        assert shown["waiting_for"] == {
            "reason": "paused",
            "detail": f"An operator has paused this model: {REASON}",
            "next_attempt_at": None,
        }
    resume(admin)
    assert alice.show(early)["waiting_for"] is None
    worker.process(2)
    assert [alice.show(each)["status"] for each in (early, late)] == ["completed"] * 2


def test_resuming_wakes_up_workers_for_what_waits(
    admin: ApiUser, alice: ApiUser, services, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[tuple[str, int]] = []
    pause(admin)
    for _ in range(3):
        alice.submit()
    monkeypatch.setattr(services.queue, "wake", lambda route, count: woken.append((route, count)))
    resume(admin)
    assert woken == [("default", 3)]


def test_reapers_neither_wake_up_workers_for_a_paused_model_nor_fail_its_prompts(
    admin: ApiUser, alice: ApiUser, sessions: Sessions, reaper: Reaper, worker: Pipeline
) -> None:
    prompt_id = alice.submit()
    pause(admin)
    with sessions.begin() as session:
        long_ago = "UPDATE prompts SET queued_at = now() - interval '9 days'"
        session.execute(text(long_ago))
        session.execute(text("UPDATE routes SET unavailable_since = now() - interval '9 days'"))
    reaper.round()
    reaper.start_probes()
    assert reaper._queue.woken == []
    assert alice.show(prompt_id)["status"] == "queued"
    resume(admin)
    reaper.round()
    worker.process(1)
    assert alice.show(prompt_id)["status"] == "completed"


def test_a_provider_that_fails_during_the_pause_does_not_end_it(
    admin: ApiUser, alice: ApiUser, sessions: Sessions, worker: Pipeline
) -> None:
    first, second = alice.submit(), alice.submit()
    unavailable = ProviderUnavailableError("Connection refused.", retry_after=1)
    status = ProviderStatus(sessions, RecordingQueue(), "default", MINUTE)

    class Pausing(Script):
        """Refuses, after an operator has paused the model."""

        def generate(self, request):
            pause(admin)
            return super().generate(request)

    failing = dataclasses.replace(worker, generator=Pausing(unavailable), provider_status=status)
    failing.process(1)
    [model] = admin.get("/admin/models/").json
    assert (model["pause"]["by"]["username"], model["detail"]) == ("root", "Connection refused.")
    assert model["paused_until"] is None
    with sessions.begin() as session:
        assert provider_pause.find_over(session) == []
        assert claims.claim(session, "default", 2, MINUTE).claims == []
    resume(admin)
    worker.process(1)
    worker.process(1)
    assert [alice.show(each)["status"] for each in (first, second)] == ["completed"] * 2


def test_a_model_can_be_paused_and_resumed_while_its_provider_is_paused_and_probed(
    admin: ApiUser, alice: ApiUser, sessions: Sessions
) -> None:
    alice.submit()
    alice.submit()
    with sessions.begin() as session:
        provider_pause.pause(session, "default", "Refused.", retry_after=MINUTE, jitter=1, probe=None)
        session.execute(text("UPDATE routes SET paused_until = now() - interval '1 ms'"))
    with sessions.begin() as session:
        [probe] = claims.claim(session, "default", 2, MINUTE).claims
    pause(admin)
    with sessions.begin() as session:
        assert not provider_pause.end(session, "default", probe.probe)
        provider_pause.probe_again(session, "default", probe.probe)
        assert claims.claim(session, "default", 2, MINUTE).claims == []
    assert resume(admin) == {
        "model": "default",
        "pause": None,
        "paused_until": None,
        "detail": None,
        "unavailable_since": None,
        "failures": 0,
        "concurrency": None,
    }
    with sessions.begin() as session:
        [claim] = claims.claim(session, "default", 2, MINUTE).claims
        assert claim.probe is None


def test_models_show_who_has_paused_them_and_why(admin: ApiUser, alice: ApiUser, sessions: Sessions) -> None:
    assert [each["pause"] for each in admin.get("/admin/models/").json] == [None]
    first = pause(admin, reason="Maintenance")["pause"]
    assert (first["by"], first["reason"]) == ({"id": admin.id, "username": "root"}, "Maintenance")
    again = pause(admin)["pause"]
    assert (again["since"], again["reason"]) == (first["since"], None)
    [provider] = admin.get("/admin/queue/").json["providers"]
    assert provider["pause"] == again
    resume(admin)
    resume(admin)  # changes nothing
    acts = [(each["action"], each["details"]) for each in admin.get("/admin/audit/").json]
    assert [each for each in acts if each[0].startswith("model.")] == [
        ("model.resumed", {"model": "default"}),
        ("model.paused", {"model": "default", "reason": None}),
        ("model.paused", {"model": "default", "reason": "Maintenance"}),
    ]


def test_an_unmodified_prompt_is_shown_again_when_its_model_is_paused(admin: ApiUser, alice: ApiUser) -> None:
    path = f"/prompts/{alice.submit()}/"
    etag = alice.get(path).headers["ETag"]
    assert alice.get(path, headers={"If-None-Match": etag}).status_code == 304
    pause(admin)
    assert alice.get(path, headers={"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize("act", ["pause", "resume"])
def test_an_unknown_model_is_404(admin: ApiUser, act: str) -> None:
    assert_problem(admin.post(f"/admin/models/none/{act}/", json={}), 404)
