"""Providers in API and worker processes: a remote embedder, a local model, and providers that cannot be created."""

import threading
from collections.abc import Iterator

import httpx
import pytest

from shared.settings import Settings
from tests.support import processes
from tests.support.openai_server import OpenAIServer
from tests.support.processes import RemoteUser
from tests.support.servers import MAX_WAIT_SECONDS, Servers, wait_until
from tests.support.threads import at_once


@pytest.fixture(scope="module")
def settings(own_settings: Settings) -> Settings:
    return own_settings


@pytest.fixture(scope="module")
def endpoint() -> Iterator[OpenAIServer]:
    with OpenAIServer(dimension=8) as running:
        yield running


@pytest.fixture(scope="module")
def remote(servers: Servers, settings: Settings, endpoint: OpenAIServer) -> Settings:
    return servers.changed(
        settings,
        embedder="openai",
        openai_base_url=endpoint.url,
        openai_embedding_model="test-embedding",
        openai_embedding_dimensions=8,
        openai_embedding_timeout_seconds=600,
        soft_shutdown_seconds=0.5,
    )


@pytest.fixture(scope="module")
def searching(remote: Settings) -> Iterator[str]:
    with processes.api(Servers.changed(remote, user_search_limit=100)) as running:
        yield running


def search(user: RemoteUser, text: str) -> httpx.Response:
    return user.http.get("/prompts/similar/", params={"prompt": text})


def test_a_search_uses_the_vectors_of_the_endpoint(remote: Settings, searching: str) -> None:
    alice = RemoteUser(searching)
    with processes.worker(remote):
        ids = [alice.submit(text) for text in ("the tides of the ocean", "a haiku about rust")]
        assert [alice.wait(each)["status"] for each in ids] == ["completed"] * 2
    found = search(alice, "a rust haiku").json()
    assert [match["id"] for match in found] == ids[::-1]


def test_searches_that_wait_for_the_endpoint_do_not_block_other_requests(
    searching: str, endpoint: OpenAIServer
) -> None:
    alice = RemoteUser(searching)
    asked = len(endpoint.requests)
    waiting = 20
    statuses: list[int] = []
    searches = threading.Thread(
        target=lambda: statuses.extend(at_once(waiting, lambda: search(alice, "embedding slow 600").status_code))
    )
    searches.start()
    wait_until(lambda: len(endpoint.requests) == asked + waiting, what="all searches asking the endpoint in parallel")
    assert httpx.get(f"{searching}/livez/").status_code == 200
    assert alice.http.get("/prompts/").status_code == 200
    with endpoint.stopped():  # which closes their connections
        searches.join(timeout=MAX_WAIT_SECONDS)
    assert statuses == [503] * waiting


@pytest.mark.parametrize(
    ("text", "retry_after"), [("embedding busy 7", "7"), ("embedding busy 0.2", "1"), ("embedding fail", "2")]
)
def test_a_search_that_the_endpoint_refuses_is_a_503_with_retry_after(
    searching: str, text: str, retry_after: str
) -> None:
    response = search(RemoteUser(searching), text)
    assert (response.status_code, response.headers["Content-Type"]) == (503, "application/problem+json")
    assert response.headers["Retry-After"] == retry_after


def test_a_search_waits_for_the_endpoint_no_longer_than_its_timeout(servers: Servers, remote: Settings) -> None:
    impatient = servers.changed(remote, openai_embedding_timeout_seconds=0.5)
    with processes.api(impatient) as url:
        response = search(RemoteUser(url), "embedding slow 600")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
        says = "The provider sent nothing for too long: 0.5 s (OPENAI_EMBEDDING_TIMEOUT_SECONDS)."
        assert response.json()["detail"] == says


def test_a_search_is_a_503_while_the_endpoint_is_unavailable_and_works_afterwards(
    searching: str, endpoint: OpenAIServer
) -> None:
    alice = RemoteUser(searching)
    with endpoint.stopped():
        response = search(alice, "tides")
        assert (response.status_code, int(response.headers["Retry-After"])) == (503, 2)
        assert response.json()["type"] == "urn:promptwire:problem:provider-unavailable"
        assert alice.http.get("/prompts/").status_code == 200
    assert search(alice, "tides").status_code == 200


def test_minilm_finds_a_prompt_by_a_paraphrase(servers: Servers, settings: Settings) -> None:
    local = servers.changed(settings, embedder="minilm", soft_shutdown_seconds=0.5)
    with processes.api(local) as url, processes.worker(local):
        alice = RemoteUser(url)
        ids = [alice.submit(text) for text in ("How do I get rid of a headache?", "What is a good name for my cat?")]
        assert [alice.wait(each)["status"] for each in ids] == ["completed"] * 2
        found = search(alice, "remedy for pain in the skull").json()
        assert [match["id"] for match in found] == ids


@pytest.mark.parametrize(
    ("command", "says"), [(processes.API, "The API cannot start."), (None, "The worker cannot start.")]
)
def test_a_process_whose_provider_cannot_be_created_exits_with_one_sentence(
    settings: Settings, servers: Servers, tmp_path, command: list[str] | None, says: str
) -> None:
    (tmp_path / "unlucky.py").write_text("def make(settings): return {}['MY_KEY']")
    changed = servers.changed(settings, embedder="unlucky:make")
    with (tmp_path / "output").open("wb") as output:
        running = processes.start(
            command or processes.worker_command("unlucky", 1),
            changed,
            output=output,
            PORT=str(processes.free_port()),
            PYTHONPATH=str(tmp_path),
        )
        try:
            assert running.wait(timeout=MAX_WAIT_SECONDS) != 0
        finally:
            processes.kill(running)
    said = (tmp_path / "output").read_text()
    assert f"{says}\nEMBEDDER='unlucky:make' could not be created: KeyError: 'MY_KEY'" in said
    assert "Traceback" not in said
