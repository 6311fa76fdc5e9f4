"""The prompt endpoints, through HTTP. The tests run the worker's steps themselves, so that each state is observable."""

import io
import re
import threading
import time

import pytest

from shared.db.engine import Sessions
from tests.support import lifecycle
from tests.support.client import ApiUser, assert_problem
from tests.support.servers import MAX_WAIT_SECONDS
from worker.pipeline import Pipeline


class TestSubmit:
    def test_a_submission_answers_202_with_the_queued_resource(self, alice: ApiUser) -> None:
        response = alice.post("/prompts/", json={"prompt_text": "Hi"})
        assert response.status_code == 202
        assert response.headers["Location"] == f"/prompts/{response.json['id']}/"
        assert response.headers["Retry-After"] == "1"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", response.json["created_at"])
        assert response.json == {
            "id": response.json["id"],
            "created_at": response.json["created_at"],
            "user": "alice",
            "prompt_text": "Hi",
            "response_text": None,
            "status": "queued",
            "priority": "default",
            "position": 1,
            "waiting_for": None,
            "websocket": False,
            "attempt": 0,
            "error": None,
            "history": 0,
            "metadata": {},
            "model": "default",
            "provider_model": None,
            "usage": None,
            "finish_reason": None,
            "tool_calls": None,
            "cached_from": None,
            "completed_at": None,
            "emptied_at": None,
        }

    def test_both_forms_of_a_path_work_without_a_redirect(self, alice: ApiUser) -> None:
        assert alice.post("/prompts", json={"prompt_text": "Hi"}).status_code == 202
        assert alice.get("/prompts").status_code == 200

    def test_a_prompts_text_is_stored_unchanged(self, alice: ApiUser) -> None:
        text = "  Grüße,\n\t世界 👋🏽 \u202e <b>&amp;</b>  "
        assert alice.show(alice.submit(text))["prompt_text"] == text

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "prompt_text"),
            ({"prompt_text": ""}, "prompt_text"),
            ({"prompt_text": " \n\t "}, "prompt_text"),
            ({"prompt_text": "a\0b"}, "prompt_text"),
            ({"prompt_text": None}, "prompt_text"),
            ({"prompt_text": 7}, "prompt_text"),
            ({"prompt_text": ["a"]}, "prompt_text"),
            ({"prompt_text": "a" * 100_001}, "prompt_text"),
            ({"prompt_text": "a", "websocket": "yes"}, "websocket"),
            ({"prompt_text": "a", "websocket": 1}, "websocket"),
            ({"prompt_text": "a", "websocket": None}, "websocket"),
            ({"prompt_text": "a", "colour": "red"}, "colour"),
        ],
    )
    def test_a_submission_with_an_invalid_field_is_400_and_names_it(
        self, alice: ApiUser, body: dict, field: str
    ) -> None:
        problem = assert_problem(alice.post("/prompts/", json=body), 400)
        assert [error["field"] for error in problem["errors"]] == [field]
        assert alice.get("/prompts/").json == []

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"{",
            b"null",
            b"[]",
            b'"{\\"prompt_text\\": \\"a\\"}"',
            b'{"prompt_text": "\\ud800"}',
            b'{"prompt_text": "\xff"}',
            b"[" * 100_000,
            b'{"prompt_text": ' + b"1" * 5_000 + b"}",
        ],
    )
    def test_a_body_that_is_not_a_json_object_is_400(self, alice: ApiUser, data: bytes) -> None:
        assert_problem(alice.post("/prompts/", data=data, content_type="application/json"), 400)

    def test_another_media_type_is_415(self, alice: ApiUser) -> None:
        assert_problem(alice.post("/prompts/", data={"prompt_text": "a"}), 415)

    def test_a_body_over_the_limit_is_413(self, alice: ApiUser) -> None:
        body = b'{"prompt_text": "' + b"a" * 1024 * 1024 + b'"}'
        assert_problem(alice.post("/prompts/", data=body, content_type="application/json"), 413)

    def test_a_chunked_body_over_the_limit_is_413(self, alice: ApiUser) -> None:
        body = b'{"prompt_text": "a"}'.ljust(1024 * 1024) + b"garbage"
        response = alice.post(
            "/prompts/",
            input_stream=io.BytesIO(body),
            content_type="application/json",
            environ_overrides={"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"},
        )
        assert_problem(response, 413)
        assert alice.get("/prompts/").json == []

    def test_an_unsupported_method_is_405_and_names_the_allowed_ones(self, alice: ApiUser) -> None:
        response = alice.call("PUT", "/prompts/", json={})
        assert_problem(response, 405)
        assert "POST" in response.headers["Allow"]


class TestWait:
    """`Prefer: wait=N`."""

    def test_a_submission_that_waits_answers_201_once_finished(self, alice: ApiUser, worker: Pipeline) -> None:
        answers = []
        request = threading.Thread(
            target=lambda: answers.append(
                alice.post("/prompts/", json={"prompt_text": "Hi"}, headers={"Prefer": "wait=30"})
            )
        )
        request.start()
        while not alice.get("/prompts/").json:
            time.sleep(0.01)
        worker.process(1)
        request.join(MAX_WAIT_SECONDS)
        assert answers[0].status_code == 201
        assert answers[0].json["status"] == "completed"
        assert answers[0].headers["Preference-Applied"] == "wait=30"
        assert "Retry-After" not in answers[0].headers

    def test_a_submission_that_waits_answers_202_if_the_prompt_does_not_finish_in_time(self, alice: ApiUser) -> None:
        response = alice.post("/prompts/", json={"prompt_text": "Hi"}, headers={"Prefer": "wait=1"})
        assert response.status_code == 202
        assert response.json["status"] == "queued"
        assert response.headers["Preference-Applied"] == "wait=1"

    def test_a_poll_that_waits_answers_once_finished(self, alice: ApiUser, worker: Pipeline) -> None:
        prompt_id = alice.submit()
        threading.Timer(0.1, worker.process, [1]).start()
        response = alice.get(f"/prompts/{prompt_id}/", headers={"Prefer": "wait=30"})
        assert (response.status_code, response.json["status"]) == (200, "completed")

    def test_a_poll_that_waits_shows_the_state_at_its_end(self, alice: ApiUser, sessions: Sessions) -> None:
        prompt_id = alice.submit()

        def claim() -> None:
            with sessions.begin() as session:
                lifecycle.claim(session, prompt_id)

        threading.Timer(0.2, claim).start()
        assert alice.get(f"/prompts/{prompt_id}/", headers={"Prefer": "wait=1"}).json["status"] == "processing"

    def test_a_poll_of_a_finished_prompt_does_not_wait(self, alice: ApiUser, worker: Pipeline) -> None:
        prompt_id = alice.submit()
        worker.process(1)
        before = time.monotonic()
        alice.get(f"/prompts/{prompt_id}/", headers={"Prefer": "wait=60"})
        assert time.monotonic() - before < 30

    def test_a_poll_is_404_if_the_prompt_is_deleted_while_it_waits(self, alice: ApiUser) -> None:
        prompt_id = alice.submit()
        threading.Timer(0.1, alice.delete, [f"/prompts/{prompt_id}/"]).start()
        assert_problem(alice.get(f"/prompts/{prompt_id}/", headers={"Prefer": "wait=30"}), 404)

    def test_a_wait_is_limited_to_60_seconds(self, alice: ApiUser, worker: Pipeline) -> None:
        prompt_id = alice.submit()
        worker.process(1)
        response = alice.get(f"/prompts/{prompt_id}/", headers={"Prefer": "wait=3600"})
        assert response.headers["Preference-Applied"] == "wait=60"

    @pytest.mark.parametrize("preference", ["wait=soon", "wait=-1", "respond-async", "await=3", ""])
    def test_an_invalid_or_other_preference_is_ignored(self, alice: ApiUser, preference: str) -> None:
        response = alice.post("/prompts/", json={"prompt_text": "Hi"}, headers={"Prefer": preference})
        assert response.status_code == 202
        assert "Preference-Applied" not in response.headers


class TestPoll:
    def test_a_poll_shows_the_answer(self, alice: ApiUser, worker: Pipeline) -> None:
        prompt_id = alice.submit("Explain the tides")
        response = alice.get(f"/prompts/{prompt_id}/")
        assert response.headers["Retry-After"] == "1"
        worker.process(1)
        response = alice.get(f"/prompts/{prompt_id}/")
        assert response.status_code == 200
        assert "Retry-After" not in response.headers
        assert response.json["status"] == "completed"
        assert response.json["attempt"] == 1
        assert "explanation for “Explain the tides”" in response.json["response_text"]
        assert response.json["completed_at"] >= response.json["created_at"]
        assert "embedding" not in response.json

    def test_a_poll_of_an_unchanged_prompt_is_304(self, alice: ApiUser, worker: Pipeline) -> None:
        prompt_id = alice.submit()
        etag = alice.get(f"/prompts/{prompt_id}/").headers["ETag"]
        unchanged = alice.get(f"/prompts/{prompt_id}/", headers={"If-None-Match": etag})
        assert (unchanged.status_code, unchanged.data, unchanged.headers["ETag"]) == (304, b"", etag)
        worker.process(1)
        changed = alice.get(f"/prompts/{prompt_id}/", headers={"If-None-Match": etag})
        assert changed.status_code == 200
        assert changed.headers["ETag"] != etag

    @pytest.mark.parametrize("given", ["*", '"other", {}', "W/{}"])
    def test_if_none_match_accepts_lists_weak_tags_and_a_star(self, alice: ApiUser, given: str) -> None:
        path = f"/prompts/{alice.submit()}/"
        etag = alice.get(path).headers["ETag"]
        assert alice.get(path, headers={"If-None-Match": given.format(etag)}).status_code == 304

    def test_each_state_has_an_etag_of_its_own(self, alice: ApiUser) -> None:
        prompt_id = alice.submit()
        seen = [alice.get(f"/prompts/{prompt_id}/").headers["ETag"]]
        for action in ("cancel", "retry", "cancel", "retry"):
            alice.post(f"/prompts/{prompt_id}/{action}/")
            seen.append(alice.get(f"/prompts/{prompt_id}/").headers["ETag"])
        assert len(set(seen)) == len(seen)

    @pytest.mark.parametrize("path", ["/prompts/999/", "/prompts/0/", "/prompts/x/", f"/prompts/{2**70}/", "/nothing/"])
    def test_a_path_that_does_not_exist_is_a_problem(self, alice: ApiUser, path: str) -> None:
        response = alice.get(path)
        assert response.status_code in (400, 404)
        assert_problem(response, response.status_code)


class TestList:
    def test_the_list_is_newest_first(self, alice: ApiUser) -> None:
        ids = [alice.submit(f"{i}") for i in range(3)]
        assert [prompt["id"] for prompt in alice.get("/prompts/").json] == ids[::-1]

    def test_a_page_has_20_prompts_by_default(self, alice: ApiUser) -> None:
        for i in range(21):
            alice.submit(f"{i}")
        response = alice.get("/prompts/")
        assert len(response.json) == 20
        assert 'rel="next"' in response.headers["Link"]

    def test_pages_have_no_skip_and_no_repeat_while_prompts_are_added(self, alice: ApiUser) -> None:
        ids = [alice.submit(f"{i}") for i in range(7)]
        seen, path = [], "/prompts/?limit=3"
        while path:
            response = alice.get(path)
            seen += [prompt["id"] for prompt in response.json]
            alice.submit("meanwhile")
            link = response.headers.get("Link")
            path = link and re.fullmatch(r'<(.+)>; rel="next"', link)[1]
        assert seen == ids[::-1]

    def test_the_list_can_be_filtered_by_status(self, alice: ApiUser, worker: Pipeline) -> None:
        first, second, third = (alice.submit(f"{i}") for i in range(3))
        worker.process(1)
        alice.post(f"/prompts/{third}/cancel/")
        for status, expected in (("queued", [second]), ("completed", [first]), ("cancelled", [third]), ("failed", [])):
            assert [prompt["id"] for prompt in alice.get(f"/prompts/?status={status}").json] == expected

    def test_the_next_page_keeps_the_status_filter(self, alice: ApiUser) -> None:
        ids = [alice.submit(f"{i}") for i in range(4)]
        alice.post(f"/prompts/{ids[1]}/cancel/")
        first = alice.get("/prompts/?status=queued&limit=2")
        next_page = re.fullmatch(r'<(.+)>; rel="next"', first.headers["Link"])[1]
        assert [prompt["id"] for prompt in alice.get(next_page).json] == [ids[0]]

    @pytest.mark.parametrize(
        "query", ["limit=0", "limit=101", "limit=x", "status=done", "cursor=x", "cursor=YmVmb3JlOjA", "colour=red"]
    )
    def test_an_invalid_query_parameter_is_400(self, alice: ApiUser, query: str) -> None:
        assert_problem(alice.get(f"/prompts/?{query}"), 400)


class TestCancel:
    def test_a_cancelled_prompt_is_never_completed(self, alice: ApiUser, worker: Pipeline) -> None:
        prompt_id = alice.submit()
        response = alice.post(f"/prompts/{prompt_id}/cancel/")
        assert response.status_code == 200
        assert response.json["status"] == "cancelled"
        assert response.json["completed_at"] is not None
        worker.process(1)
        assert alice.show(prompt_id)["status"] == "cancelled"

    def test_cancelling_a_finished_prompt_is_409(self, alice: ApiUser, worker: Pipeline) -> None:
        prompt_id = alice.submit()
        worker.process(1)
        problem = assert_problem(alice.post(f"/prompts/{prompt_id}/cancel/"), 409)
        assert "completed" in problem["detail"]
        assert alice.show(prompt_id)["status"] == "completed"


class TestRetry:
    def test_a_retry_queues_a_cancelled_prompt_again(self, alice: ApiUser, worker: Pipeline) -> None:
        prompt_id = alice.submit()
        alice.post(f"/prompts/{prompt_id}/cancel/")
        response = alice.post(f"/prompts/{prompt_id}/retry/")
        assert response.status_code == 202
        assert (response.json["status"], response.json["completed_at"]) == ("queued", None)
        worker.process(1)
        assert alice.show(prompt_id)["status"] == "completed"

    def test_retrying_a_queued_or_completed_prompt_is_409(self, alice: ApiUser, worker: Pipeline) -> None:
        prompt_id = alice.submit()
        assert_problem(alice.post(f"/prompts/{prompt_id}/retry/"), 409)
        worker.process(1)
        assert_problem(alice.post(f"/prompts/{prompt_id}/retry/"), 409)


class TestDelete:
    def test_a_deleted_prompt_immediately_disappears_from_every_answer(self, alice: ApiUser, worker: Pipeline) -> None:
        kept, gone = alice.submit("kept tides"), alice.submit("gone tides")
        worker.process(2)
        assert len(alice.get("/prompts/similar/?prompt=tides").json) == 2
        response = alice.delete(f"/prompts/{gone}/")
        assert (response.status_code, response.data) == (204, b"")
        assert_problem(alice.get(f"/prompts/{gone}/"), 404)
        assert [prompt["id"] for prompt in alice.get("/prompts/").json] == [kept]
        assert [prompt["id"] for prompt in alice.get("/prompts/similar/?prompt=tides").json] == [kept]
        assert_problem(alice.delete(f"/prompts/{gone}/"), 404)

    def test_a_prompt_deleted_while_queued_is_not_answered(self, alice: ApiUser, worker: Pipeline) -> None:
        prompt_id = alice.submit()
        alice.delete(f"/prompts/{prompt_id}/")
        worker.process(1)
        assert alice.get("/prompts/").json == []


class TestOtherUsers:
    """To a user, other users' prompts do not exist."""

    @pytest.mark.parametrize(
        ("method", "path"),
        [("GET", ""), ("DELETE", ""), ("POST", "cancel/"), ("POST", "retry/")],
    )
    def test_another_users_prompt_is_404(self, alice: ApiUser, bob: ApiUser, method: str, path: str) -> None:
        prompt_id = alice.submit("secret")
        missing = assert_problem(bob.call(method, f"/prompts/999999/{path}"), 404)
        assert assert_problem(bob.call(method, f"/prompts/{prompt_id}/{path}"), 404) == missing
        assert alice.show(prompt_id)["status"] == "queued"

    def test_lists_and_searches_show_only_the_users_own_prompts(
        self, alice: ApiUser, bob: ApiUser, worker: Pipeline
    ) -> None:
        alice.submit("secret tides")
        worker.process(1)
        assert bob.get("/prompts/").json == []
        assert bob.get("/prompts/similar/?prompt=secret+tides").json == []

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/prompts/"),
            ("GET", "/prompts/"),
            ("GET", "/prompts/1/"),
            ("DELETE", "/prompts/1/"),
            ("POST", "/prompts/1/cancel/"),
            ("POST", "/prompts/1/retry/"),
            ("GET", "/prompts/similar/?prompt=a"),
        ],
    )
    def test_without_a_token_every_route_is_401(self, app, method: str, path: str) -> None:
        response = app.test_client().open(path, method=method)
        assert_problem(response, 401)
        assert response.headers["WWW-Authenticate"] == "Bearer"


class TestRequestId:
    def test_a_request_id_is_generated_and_returned(self, alice: ApiUser) -> None:
        assert re.fullmatch(r"[0-9a-f]{32}", alice.get("/prompts/").headers["X-Request-ID"])

    def test_a_given_request_id_is_returned(self, alice: ApiUser) -> None:
        assert alice.get("/prompts/", headers={"X-Request-ID": "abc-1"}).headers["X-Request-ID"] == "abc-1"

    def test_a_request_id_that_could_break_a_log_line_is_replaced(self, alice: ApiUser) -> None:
        given = 'a"b c'
        assert alice.get("/prompts/", headers={"X-Request-ID": given}).headers["X-Request-ID"] != given
