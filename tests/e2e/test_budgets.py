"""Budgets and the ledger while processes are killed. `make faults ARGS=budgets` does it again and again, under load."""

import os
from pathlib import Path

import httpx
import psutil

from shared.db.engine import make_engine, make_sessions
from shared.settings import Settings
from tests.support import processes
from tests.support.processes import API, RemoteUser, free_port
from tests.support.servers import Servers, wait_until
from tests.support.usage import ledger, of_prompts

RESERVED_OUTPUT_TOKENS = 50


def test_no_budget_is_exceeded_and_nothing_leaks_when_workers_and_api_processes_are_killed(
    servers: Servers, own_settings: Settings, tmp_path: Path
) -> None:
    answer = tmp_path / "answer"
    answer.touch()
    text = f"copy {answer}"  # takes until the file has a line
    needed = -(-len(text) // 4) + RESERVED_OUTPUT_TOKENS
    settings = servers.changed(
        own_settings,
        generator="tests.support.providers:one_by_one",
        user_monthly_tokens=3 * needed,
        reserved_output_tokens=RESERVED_OUTPUT_TOKENS,
        lease_seconds=1,
        reaper_seconds=0.2,
    )
    url = f"http://127.0.0.1:{(port := free_port())}"
    with processes.process(API, settings, PORT=str(port), API_PROCESSES="2") as api:
        wait_until(lambda: processes.answers(url), what="the API starting")
        alice = RemoteUser(url)
        with processes.worker(settings, processes=1, name="one") as worker:
            ids = [alice.submit(text) for _ in range(3)]
            wait_until(lambda: alice.show(ids[0])["status"] == "processing", what="the claim")
            processes.kill(worker)
        os.kill(psutil.Process(api.pid).children()[0].pid, 9)
        wait_until(lambda: refuses(alice, text), what="a response")
        with processes.worker(settings, processes=1, name="two"):
            answer.write_text("whole\n")
            assert [alice.wait(each)["status"] for each in ids] == ["completed"] * 3
        (budget,) = alice.http.get("/usage/").json()["budgets"]
        assert (budget["used_tokens"], budget["reserved_tokens"]) == (3 * (needed - RESERVED_OUTPUT_TOKENS + 3), 0)
        assert alice.submit(text)
    with make_sessions(make_engine(settings, application_name="test"))() as session:
        finished, *tokens = ledger(session, 1)
        assert (finished, tuple(tokens)) == (3, of_prompts(session, 1))


def refuses(user: RemoteUser, text: str) -> bool:
    """Whether the budget refuses a submission; False while no process answers."""
    try:
        response = user.http.post("/prompts/", json={"prompt_text": text})
    except httpx.TransportError:
        return False
    assert response.json()["type"].endswith("/budget-exceeded"), response.text
    return True
