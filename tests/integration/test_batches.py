"""Batches: `POST /v1/batches`, and what becomes of the lines of a file."""

import json
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select, text

from shared.batches import lines as batch_lines
from shared.db.engine import Sessions
from shared.db.models import COUNTED, Prompt
from shared.messaging.announcements import Announcement
from shared.settings import Settings
from shared.webhooks import deliveries
from tests.support.batches import create, jsonl, line, make_driver, make_due, results, run, show, upload
from tests.support.client import ApiUser
from worker.batches import driver as driver_module
from worker.batches.driver import BatchDriver
from worker.pipeline import Pipeline


@pytest.fixture
def driver(settings: Settings, sessions: Sessions, autocommit_engine: Engine) -> BatchDriver:
    return make_driver(settings, sessions, autocommit_engine)


@pytest.fixture
def finish(driver: BatchDriver, worker: Pipeline, sessions: Sessions):
    """Runs a batch of a user to its end."""
    return lambda user, batch: run(user, batch, driver, worker, sessions)


def prompts(sessions: Sessions) -> list:
    with sessions() as session:
        return session.execute(
            text("SELECT id, status, priority, batch_line, attempt, turn FROM prompts ORDER BY batch_line")
        ).all()


def execute(sessions: Sessions, statement: str) -> None:
    with sessions.begin() as session:
        session.execute(text(statement))


def test_every_line_is_answered_once_in_the_output_file(alice: ApiUser, finish) -> None:
    batch = create(alice, [line(number) for number in range(1, 31)])
    assert (batch["status"], batch["request_counts"]) == ("validating", {"total": 0, "completed": 0, "failed": 0})
    ended = finish(alice, batch)
    assert ended["status"] == "completed"
    assert ended["request_counts"] == {"total": 30, "completed": 30, "failed": 0}
    assert ended["error_file_id"] is None
    found = results(alice, ended)
    assert [each["custom_id"] for each in found] == [f"line-{number}" for number in range(1, 31)]
    assert found[0]["error"] is None
    assert found[0]["response"]["status_code"] == 200
    assert "Question 1" in found[0]["response"]["body"]["choices"][0]["message"]["content"]


def test_lines_are_prompts_of_low_priority_in_lists_and_search(alice: ApiUser, finish) -> None:
    finish(alice, create(alice, [line(1, "What is a spring tide?")]))
    (prompt,) = alice.get("/prompts/").json
    assert (prompt["prompt_text"], prompt["priority"]) == ("What is a spring tide?", "low")
    (similar,) = alice.get("/prompts/similar/", query_string={"prompt": "What is a spring tide?"}).json
    assert similar["id"] == prompt["id"]


@pytest.mark.parametrize(
    ("second", "code", "param", "words"),
    [
        (b"not json\n", "invalid_json_line", None, "not valid JSON"),
        (b"\n", "invalid_json_line", None, "The line is empty."),
        (b"\xef\xbb\xbf{}", "invalid_json_line", None, "byte order mark"),
        (b"[]\n", "invalid_request", None, "The line must be an object."),
        (b"[]\n", "invalid_request", None, ""),
        (line(1), "duplicate_custom_id", "custom_id", "line-1"),
        (line(2, method="GET"), "invalid_request", "method", "POST"),
        (line(2, url="/v1/embeddings"), "invalid_request", "url", "/v1/chat/completions"),
        (line(2, custom_id=""), "invalid_request", "custom_id", ""),
        (line(2, surplus=1), "invalid_request", "surplus", ""),
        (line(2, body={"model": "default"}), "invalid_request", "messages", ""),
        (
            line(2, body=line(2)["body"] | {"model": "unknown"}),
            "invalid_request",
            "model",
            "There is no model unknown",
        ),
        (line(2, body=line(2)["body"] | {"stream": True}), "invalid_request", "stream", "streamed"),
        (line(2, body=line(2)["body"] | {"n": 2}), "invalid_request", "n", ""),
    ],
)
def test_the_whole_file_is_validated_first_and_errors_name_lines(
    alice: ApiUser, finish, sessions: Sessions, second: object, code: str, param: str | None, words: str
) -> None:
    content = jsonl([line(1)]) + (second if isinstance(second, bytes) else jsonl([second]))
    ended = finish(alice, create(alice, content))
    assert ended["status"] == "failed"
    (error,) = ended["errors"]["data"]
    assert (error["code"], error["line"], error["param"]) == (code, 2, param)
    assert words in error["message"]
    assert prompts(sessions) == []


def test_an_empty_file_fails(alice: ApiUser, finish) -> None:
    assert finish(alice, create(alice, b""))["errors"]["data"][0]["code"] == "empty_file"


def test_at_most_twenty_errors_are_listed(alice: ApiUser, finish) -> None:
    assert len(finish(alice, create(alice, b"{\n" * 50))["errors"]["data"]) == 20


def test_a_batch_has_at_most_fifty_thousand_lines(alice: ApiUser, finish, monkeypatch: pytest.MonkeyPatch) -> None:
    assert batch_lines.MAX_LINES == 50_000
    monkeypatch.setattr(batch_lines, "MAX_LINES", 3)
    (error,) = finish(alice, create(alice, [line(number) for number in range(4)]))["errors"]["data"]
    assert (error["code"], error["line"]) == ("too_many_lines", 4)


def test_a_line_longer_than_a_body_is_refused(alice: ApiUser, finish, settings: Settings) -> None:
    content = jsonl([line(1)]) + b"x" * (settings.max_body_bytes + 1) + b"\n"
    (error,) = finish(alice, create(alice, content))["errors"]["data"]
    assert (error["code"], error["line"]) == ("line_too_long", 2)


def test_counts_are_true_at_any_moment(
    alice: ApiUser, driver: BatchDriver, worker: Pipeline, sessions: Sessions
) -> None:
    batch = create(alice, [line(number) for number in range(1, 11)])
    driver.step()
    assert show(alice, batch)["request_counts"] == {"total": 10, "completed": 0, "failed": 0}
    driver.step()
    worker.process(4)
    done = sum(prompt.status == "completed" for prompt in prompts(sessions))
    assert 0 < done <= 10
    assert show(alice, batch)["request_counts"] == {"total": 10, "completed": done, "failed": 0}


def test_a_batch_is_completed_only_when_its_files_can_be_read(
    alice: ApiUser, driver: BatchDriver, worker: Pipeline, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = create(alice, [line(1)])
    driver.step(), driver.step(), worker.process(10)  # validated, stored, answered
    make_due(sessions)
    driver.step()
    assert show(alice, batch)["status"] == "finalizing"

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("killed while it writes")

    with monkeypatch.context() as patched:
        patched.setattr(driver_module.batches, "end", fail)
        with pytest.raises(RuntimeError):
            driver.step()
    assert [file["purpose"] for file in alice.get("/v1/files").json["data"]] == ["batch"]
    ended = run(alice, batch, driver, worker, sessions)
    assert (ended["status"], len(results(alice, ended))) == ("completed", 1)


def test_a_driver_killed_between_groups_stores_no_line_twice(
    alice: ApiUser, driver: BatchDriver, finish, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "GROUP", 4)
    batch = create(alice, [line(number) for number in range(1, 11)])
    driver.step()
    store, groups, woken = driver_module.storing.store, iter(range(2)), []

    def store_one_group(*arguments: object) -> None:
        if next(groups) > 0:
            raise RuntimeError("killed between groups")
        store(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(driver_module.storing, "store", store_one_group)
        patched.setattr(driver._queue, "wake", lambda route, count: woken.append((route, count)))
        with pytest.raises(RuntimeError):
            driver.step()
    assert [prompt.batch_line for prompt in prompts(sessions)] == [1, 2, 3, 4]
    assert woken == [("default", 4)]
    ended = finish(alice, batch)
    assert ended["request_counts"] == {"total": 10, "completed": 10, "failed": 0}
    assert [prompt.batch_line for prompt in prompts(sessions)] == list(range(1, 11))


def test_a_driver_that_has_lost_its_lease_stores_nothing(
    alice: ApiUser, driver: BatchDriver, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(alice, [line(1)])
    driver.step()
    read = driver._input.next_lines

    def lose(batch):
        execute(sessions, "UPDATE batches SET leased_by = 'another'")
        return read(batch)

    monkeypatch.setattr(driver._input, "next_lines", lose)
    assert driver.step()
    assert prompts(sessions) == []


def test_finished_lines_survive_a_cancel_and_the_counts_are_exact(
    alice: ApiUser, driver: BatchDriver, worker: Pipeline, finish, sessions: Sessions
) -> None:
    batch = create(alice, [line(number) for number in range(1, 151)])
    driver.step(), driver.step(), worker.process(100)
    done = show(alice, batch)["request_counts"]["completed"]
    assert 0 < done < 150
    cancelling = alice.post(f"/v1/batches/{batch['id']}/cancel").json
    assert (cancelling["status"], cancelling["cancelling_at"] is not None) == ("cancelling", True)
    ended = finish(alice, batch)
    assert ended["status"] == "cancelled"
    assert ended["request_counts"] == {"total": 150, "completed": done, "failed": 150 - done}
    errors = results(alice, ended, "error_file_id")
    assert len(results(alice, ended)) == done
    assert {each["error"]["code"] for each in errors} == {"batch_cancelled"}
    assert len({each["custom_id"] for each in [*errors, *results(alice, ended)]}) == 150
    assert alice.post(f"/v1/batches/{batch['id']}/cancel").json == ended


def test_a_batch_cancelled_before_its_lines_are_stored_lists_them_all(
    alice: ApiUser, driver: BatchDriver, finish, sessions: Sessions
) -> None:
    batch = create(alice, [line(1), line(2)])
    driver.step()
    alice.post(f"/v1/batches/{batch['id']}/cancel")
    ended = finish(alice, batch)
    assert ended["request_counts"] == {"total": 2, "completed": 0, "failed": 2}
    assert prompts(sessions) == []


def test_a_batch_that_is_validating_is_cancelled_without_files(alice: ApiUser, finish) -> None:
    batch = create(alice, b"not valid\n")
    alice.post(f"/v1/batches/{batch['id']}/cancel")
    ended = finish(alice, batch)
    assert (ended["status"], ended["output_file_id"], ended["error_file_id"]) == ("cancelled", None, None)


def test_finished_lines_survive_the_end_of_the_completion_window(
    alice: ApiUser, driver: BatchDriver, worker: Pipeline, finish, sessions: Sessions
) -> None:
    batch = create(alice, [line(number) for number in range(1, 121)])
    driver.step(), driver.step(), worker.process(100)
    done = show(alice, batch)["request_counts"]["completed"]
    execute(sessions, "UPDATE batches SET expires_at = now()")
    ended = finish(alice, batch)
    assert (ended["status"], ended["expired_at"] is not None) == ("expired", True)
    assert ended["request_counts"] == {"total": 120, "completed": done, "failed": 120 - done}
    assert {each["error"]["code"] for each in results(alice, ended, "error_file_id")} == {"batch_expired"}


def test_a_batch_that_has_ended_cannot_be_cancelled(alice: ApiUser, finish) -> None:
    batch = create(alice, [line(1)])
    finish(alice, batch)
    response = alice.post(f"/v1/batches/{batch['id']}/cancel")
    assert (response.status_code, response.json["error"]["code"]) == (409, "batch_ended")


def test_a_line_whose_prompt_is_deleted_or_cancelled_is_in_the_error_file(
    alice: ApiUser, driver: BatchDriver, finish, sessions: Sessions
) -> None:
    batch = create(alice, [line(number) for number in range(1, 4)])
    driver.step(), driver.step()
    first, second, _ = prompts(sessions)
    alice.delete(f"/prompts/{first.id}/")
    alice.post(f"/prompts/{second.id}/cancel/")
    ended = finish(alice, batch)
    assert ended["request_counts"] == {"total": 3, "completed": 1, "failed": 2}
    codes = [(each["custom_id"], each["error"]["code"]) for each in results(alice, ended, "error_file_id")]
    assert codes == [("line-1", "prompt_deleted"), ("line-2", "prompt_cancelled")]


def test_a_line_that_is_retried_after_its_batch_is_an_ordinary_prompt(
    alice: ApiUser, driver: BatchDriver, finish, sessions: Sessions, worker: Pipeline
) -> None:
    batch = create(alice, [line(1), line(2)])
    driver.step(), driver.step()
    retried, _ = (prompt.id for prompt in prompts(sessions))
    alice.post(f"/prompts/{retried}/cancel/")
    ended = finish(alice, batch)
    assert alice.post(f"/prompts/{retried}/retry/").status_code == 202
    with sessions() as session:
        assert session.execute(select(Prompt.id).where(text(COUNTED))).scalars().all() == [retried]
    worker.process(1)
    assert alice.show(retried)["status"] == "completed"
    assert show(alice, batch)["request_counts"] == ended["request_counts"]


RESPONSE = {"url": "/v1/responses", "body": {"model": "default", "input": "What is a tide?"}}


def test_a_batch_of_responses_has_their_resources_in_its_file(alice: ApiUser, finish) -> None:
    ended = finish(alice, create(alice, [line(1, **RESPONSE)], endpoint="/v1/responses"))
    (found,) = results(alice, ended)
    body = found["response"]["body"]
    assert (body["object"], body["status"], body["model"]) == ("response", "completed", "default")
    assert body["output"][0]["content"][0]["text"].startswith("You asked")
    assert alice.get(f"/v1/responses/{body['id']}").json == body


@pytest.mark.parametrize(
    "field", [{"background": True}, {"store": False}, {"previous_response_id": "resp_1"}, {"stream": True}]
)
def test_a_line_cannot_ask_for_what_only_a_single_response_has(alice: ApiUser, finish, field: dict) -> None:
    asking = RESPONSE | {"body": RESPONSE["body"] | field}
    ended = finish(alice, create(alice, [line(1, **asking)], endpoint="/v1/responses"))
    assert [error["param"] for error in ended["errors"]["data"]] == [*field]


def test_lines_count_neither_for_the_users_backlog_nor_for_that_of_all(
    make_app, settings: Settings, sessions: Sessions, autocommit_engine: Engine
) -> None:
    app, _ = make_app(user_backlog_limit=2, backlog_limit=2)
    alice = ApiUser(app, "alice")
    driver = make_driver(settings, sessions, autocommit_engine)
    create(alice, [line(number) for number in range(20)])
    driver.step(), driver.step()
    assert len(prompts(sessions)) == 20
    assert alice.post("/prompts/", json={"prompt_text": "Now"}).status_code == 202


def test_lines_do_not_count_for_the_rate_limit(alice: ApiUser, driver: BatchDriver, sessions: Sessions) -> None:
    create(alice, [line(number) for number in range(20)])
    driver.step(), driver.step()
    alice.submit()


def test_a_user_has_a_number_of_unfinished_batches(make_app) -> None:
    app, _ = make_app(user_batch_limit=1)
    alice = ApiUser(app, "alice")
    batch = create(alice, [line(1)])
    body = {"input_file_id": batch["input_file_id"], "endpoint": batch["endpoint"], "completion_window": "24h"}
    response = alice.post("/v1/batches", json=body)
    assert (response.status_code, response.json["error"]["code"]) == (429, "user_limit")


@pytest.mark.parametrize("left", [0, 1])
def test_a_batch_over_the_budget_fails_as_a_whole(
    make_app, settings: Settings, sessions: Sessions, autocommit_engine, worker: Pipeline, left: int
) -> None:
    needed = 3 * reserved_by_a_line(settings)
    limited = settings.model_copy(update={"user_monthly_tokens": needed - 1 + left})
    alice = ApiUser(make_app(user_monthly_tokens=limited.user_monthly_tokens)[0], "alice")
    driver = make_driver(limited, sessions, autocommit_engine)
    batch = create(alice, [line(number, "Why?") for number in range(3)])
    driver.step()
    if left:
        assert show(alice, batch)["status"] == "in_progress"
        assert alice.post("/prompts/", json={"prompt_text": "Why?"}).status_code == 429
        assert run(alice, batch, driver, worker, sessions)["status"] == "completed"
    else:
        (error,) = show(alice, batch)["errors"]["data"]
        assert (error["code"], "USER_MONTHLY_TOKENS" in error["message"]) == ("budget_exceeded", True)


def reserved_by_a_line(settings: Settings) -> int:
    from shared.accounts.budgets import Estimator

    return Estimator(settings.model_copy(update={"user_monthly_tokens": 1})).tokens("Why?", 0, None)


def test_a_replayed_idempotency_key_makes_one_batch(alice: ApiUser) -> None:
    file_id = upload(alice, jsonl([line(1)])).json["id"]
    body = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    headers = {"Idempotency-Key": "k"}
    first, second = (alice.post("/v1/batches", json=body, headers=headers) for _ in range(2))
    assert first.json["id"] == second.json["id"]
    assert second.headers["Idempotency-Replayed"] == "true"
    other = alice.post("/v1/batches", json=body | {"completion_window": "1h"}, headers=headers)
    assert other.status_code == 422


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input_file_id": "file-999"}, "input_file_id"),
        ({"input_file_id": "nonsense"}, "input_file_id"),
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "0h"}, "completion_window"),
        ({"completion_window": "169h"}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"output_expires_after": {}}, "output_expires_after"),
    ],
)
def test_an_invalid_field_is_refused_with_its_name(alice: ApiUser, change: dict, param: str) -> None:
    file_id = upload(alice, jsonl([line(1)])).json["id"]
    body = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    response = alice.post("/v1/batches", json=body | change)
    assert response.status_code == 400
    assert response.json["error"]["param"].startswith(param)


def test_batches_are_listed_newest_first_in_pages(alice: ApiUser, bob: ApiUser) -> None:
    made = [create(alice, [line(1)], metadata={"number": str(number)})["id"] for number in range(3)]
    first = alice.get("/v1/batches?limit=2").json
    assert ([each["id"] for each in first["data"]], first["has_more"]) == ([made[2], made[1]], True)
    rest = alice.get(f"/v1/batches?after={first['last_id']}").json
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == ([made[0]], False)
    assert bob.get("/v1/batches").json["data"] == []
    assert bob.get(f"/v1/batches/{made[0]}").status_code == 404
    assert bob.post(f"/v1/batches/{made[0]}/cancel").status_code == 404


def test_a_key_restricted_to_models_restricts_its_batches(
    alice: ApiUser, driver: BatchDriver, sessions: Sessions
) -> None:
    key = alice.with_key(models=["default"])
    batch = create(key, [line(1)])
    execute(sessions, "UPDATE api_keys SET models = '{another}'")
    driver.step()
    (error,) = show(alice, batch)["errors"]["data"]
    assert (error["param"], "may not use the model default" in error["message"]) == ("model", True)


@pytest.mark.parametrize("ending", ["completed", "failed", "cancelled", "expired"])
def test_a_webhook_gets_one_event_of_a_batch_and_none_of_its_lines(
    alice: ApiUser, finish, sessions: Sessions, driver: BatchDriver, ending: str
) -> None:
    webhook = alice.post("/webhooks/", json={"url": "https://hooks.example/"}).json
    batch = create(alice, b"{" if ending == "failed" else [line(1), line(2)])
    if ending == "cancelled":
        alice.post(f"/v1/batches/{batch['id']}/cancel")
    if ending == "expired":
        execute(sessions, "UPDATE batches SET expires_at = now()")
    assert finish(alice, batch)["status"] == ending
    (delivery,) = alice.get(f"/webhooks/{webhook['id']}/deliveries/").json
    assert (delivery["event"], delivery["batch_id"], delivery["prompt_id"]) == (f"batch.{ending}", batch["id"], None)


@pytest.fixture
def announced(driver: BatchDriver, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The events of progress that sockets get, in order."""
    events: list[dict] = []
    announce = driver._announcer.announce

    def note(*sent: tuple[int, Announcement]) -> None:
        events.extend(json.loads(each.message) for _, each in sent if each.message)
        announce(*sent)

    monkeypatch.setattr(driver._announcer, "announce", note)
    return events


def let_time_pass(sessions: Sessions, seconds: int) -> None:
    """Let the last events of progress be older."""
    with sessions.begin() as session:
        session.execute(
            text("""
                UPDATE batches SET announced_at = announced_at - CAST(:time AS interval),
                    progress_delivered_at = progress_delivered_at - CAST(:time AS interval)
            """),
            {"time": timedelta(seconds=seconds)},
        )
    make_due(sessions)


def test_sockets_get_the_progress_of_a_batch_once_a_second_and_only_what_is_new(
    alice: ApiUser, driver: BatchDriver, worker: Pipeline, sessions: Sessions, announced: list[dict]
) -> None:
    batch = create(alice, [line(number) for number in range(1, 21)])
    driver.round()
    counts = {"total": 20, "completed": 0, "failed": 0}
    first = {"type": "batch.progress", "id": batch["id"], "status": "in_progress", "request_counts": counts}
    (event,) = announced
    assert event.pop("timestamp").endswith("Z")
    assert event == first
    worker.process(4)
    let_time_pass(sessions, -60)  # however slow the test is
    driver.round()
    assert len(announced) == 1, "a second has not passed"
    let_time_pass(sessions, 61)
    driver.round()
    assert announced[1]["request_counts"] == show(alice, batch)["request_counts"]
    assert announced[1]["request_counts"]["completed"] > 0
    let_time_pass(sessions, 1)
    driver.round()
    assert len(announced) == 2, "nothing has changed"


def test_a_webhook_gets_progress_if_it_asks_for_it_by_name_every_ten_seconds(
    alice: ApiUser, driver: BatchDriver, worker: Pipeline, sessions: Sessions
) -> None:
    asks = alice.post("/webhooks/", json={"url": "https://hooks.example/", "events": ["batch.progress"]}).json
    all_others = alice.post("/webhooks/", json={"url": "https://hooks.example/"}).json
    batch = create(alice, [line(number) for number in range(1, 21)])

    def answer_some(seconds: int) -> list[dict]:
        worker.process(2)
        let_time_pass(sessions, seconds)
        driver.round()
        return alice.get(f"/webhooks/{asks['id']}/deliveries/").json

    (delivery,) = answer_some(0)
    assert (delivery["event"], delivery["batch_id"], delivery["seq"]) == ("batch.progress", batch["id"], None)
    assert delivery["message_id"] == f"msg_{asks['id']}_progress_{delivery['id']}"
    execute(sessions, "UPDATE webhook_deliveries SET status = 'delivered'")
    assert len(answer_some(-60)) == 1
    assert len(answer_some(70)) == 2
    assert len(answer_some(10)) == 2, "one is still pending, and will have the newest counts"
    assert alice.get(f"/webhooks/{all_others['id']}/deliveries/").json == []
    with sessions.begin() as session:
        assert deliveries.claim(session, "test", limit=1) == [asks["id"]]
        (pending,) = deliveries.read(session, "test", asks["id"]).deliveries
    body = json.loads(pending.event.body)
    assert (body["type"], body["data"]["status"]) == ("batch.progress", "in_progress")
    assert body["data"]["request_counts"] == show(alice, batch)["request_counts"]


def test_deleting_the_account_stops_its_batches(alice: ApiUser, driver: BatchDriver, sessions: Sessions) -> None:
    create(alice, [line(1)])
    driver.step()
    assert alice.call("DELETE", "/account/", json={"password": "correct horse battery"}).status_code == 204
    make_due(sessions)
    driver.round()
    assert prompts(sessions) == []
