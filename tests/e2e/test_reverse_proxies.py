"""The service in production behind a real nginx and a real Caddy, with the files of infra/proxy.

Clients know the public address alone: its port is not the one on which the proxy listens, as if that were published.
"""

import dataclasses
import os
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from sqlalchemy import delete
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from api.client.client import Client
from api.http.prompt_schemas import MAX_WAIT_SECONDS as LONGEST_WAIT_SECONDS
from api.http.public_address import STRICT_TRANSPORT_SECURITY
from infra.doctor.public_url import public_url
from shared.accounts import users
from shared.db.engine import Sessions
from shared.db.models import UNFINISHED, Prompt
from shared.providers import GenerationRequest
from shared.settings import Settings
from tests.support import processes, reverse_proxies
from tests.support.client import PASSWORD
from tests.support.events import follow
from tests.support.processes import RemoteUser
from tests.support.reverse_proxies import CADDY_SITES, NGINX_SITES, PREFIX, Upstreams
from tests.support.servers import MAX_WAIT_SECONDS, Servers, wait_until
from worker.pipeline import Pipeline

PUBLIC_HOST = "example.test:8443"
ORIGIN = f"https://{PUBLIC_HOST}"
SITES = [*(("nginx", site) for site in NGINX_SITES), *(("caddy", site) for site in CADDY_SITES)]


class TwoParts:
    """Generates a first part, and a last one when it is let."""

    name, max_batch_size = "two-parts", 1

    def __init__(self) -> None:
        self.may_end = threading.Event()

    def generate(self, request: GenerationRequest) -> Iterator[str]:
        yield "first"
        assert self.may_end.wait(MAX_WAIT_SECONDS)
        yield "last"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A certificate for this machine, which this process trusts, in one file with its key."""
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command += f" -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout {path}.key -out {path}.crt"
    subprocess.run(command.split(), check=True, capture_output=True, timeout=MAX_WAIT_SECONDS)
    path.write_text(Path(f"{path}.key").read_text() + Path(f"{path}.crt").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(path))
        yield path


@pytest.fixture(scope="module")
def settings(servers: Servers) -> Iterator[Settings]:
    with servers.database() as name:
        yield servers.settings(name, app_env="prod", trusted_proxies=1, max_page_bytes=1024)


@pytest.fixture(scope="module")
def upstreams(settings: Settings, certificate: Path) -> Iterator[Upstreams]:
    ports = processes.free_port(), processes.free_port()
    with (
        processes.process(processes.API, settings, PORT=str(ports[0]), PUBLIC_URL=ORIGIN) as first,
        processes.process(processes.API, settings, PORT=str(ports[1]), PUBLIC_URL=f"{ORIGIN}{PREFIX}"),
    ):
        for port in ports:
            wait_until(lambda port=port: processes.answers(f"http://127.0.0.1:{port}"), what="the API starting")
        yield Upstreams(*ports, certificate)
        first.terminate()  # both at once


@pytest.fixture(scope="module")
def nginx(upstreams: Upstreams, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    with reverse_proxies.nginx(upstreams, tmp_path_factory.mktemp("nginx")) as ports:
        yield ports


@pytest.fixture(scope="module")
def caddy(upstreams: Upstreams, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    with reverse_proxies.caddy(upstreams, tmp_path_factory.mktemp("caddy")) as ports:
        yield ports


@dataclasses.dataclass(frozen=True)
class Site:
    """A site of a proxy, and a user who is logged in there."""

    port: int
    prefix: str
    is_shipped: bool
    user: RemoteUser

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.user.http.get(f"https://127.0.0.1:{self.port}{path}", headers=headers)

    def resolve(self, base: str, reference: str) -> httpx.Response:
        """Get what a reference in the response to `base` leads to, as browsers and clients resolve it."""
        target = urlsplit(urljoin(f"{ORIGIN}{base}", reference))
        assert f"{target.scheme}://{target.netloc}" == ORIGIN
        return self.get(f"{target.path}?{target.query}")

    def open_socket(self, origin: str) -> Any:
        trusted = ssl.create_default_context()
        connection = socket.create_connection(("127.0.0.1", self.port), MAX_WAIT_SECONDS)
        return connect(
            f"wss://{PUBLIC_HOST}{self.prefix}/ws/prompts/{self.user.username}/",
            sock=connection,
            ssl=trusted,
            server_hostname="127.0.0.1",
            origin=origin,
            open_timeout=MAX_WAIT_SECONDS,
            ping_timeout=MAX_WAIT_SECONDS,
            additional_headers={"Authorization": self.user.http.headers["Authorization"]},
        )


@pytest.fixture(scope="module")
def username(sessions: Sessions) -> str:
    with sessions.begin() as session:
        users.create(session, "alice", users.hash_password(PASSWORD))
    return "alice"


@pytest.fixture(scope="module", params=SITES, ids=": ".join)
def site(request: pytest.FixtureRequest, upstreams: Upstreams, username: str) -> Site:
    proxy, name = request.param
    port = request.getfixturevalue(proxy)[name]
    prefix = NGINX_SITES[name]
    user = RemoteUser(f"https://127.0.0.1:{port}{prefix}", username, is_new=False)
    user.http.headers["Host"] = PUBLIC_HOST
    return Site(port, prefix, "Host replaced" not in name, user)


def test_the_page_the_api_and_sockets_work_at_the_public_address(site: Site) -> None:
    page = site.get(f"{site.prefix}/")
    assert page.status_code == 200
    for reference in re.findall(r'(?:src|href)="([^"#]+)"', page.text):
        assert site.resolve(f"{site.prefix}/", reference).status_code == 200
    docs = f"{site.prefix}/docs"
    for reference in re.findall(r'(?:src|href)="([^"#:]+)"', site.get(docs).text):
        assert site.resolve(docs, reference).status_code == 200

    ids = []
    for _ in range(3):
        submitted = site.user.http.post("/prompts/", json={"prompt_text": "a" * 500}, headers={"Origin": ORIGIN})
        assert submitted.status_code == 202
        shown = site.resolve(f"{site.prefix}/prompts/", submitted.headers["Location"])
        ids.append(shown.json()["id"])
    listed, response = [], site.get(f"{site.prefix}/prompts/?limit=2")
    while len(listed := listed + [prompt["id"] for prompt in response.json()]) < len(ids):
        response = site.resolve(f"{site.prefix}/prompts/", response.links["next"]["url"])
    assert listed[: len(ids)] == ids[::-1]

    with site.open_socket(ORIGIN) as connection:
        assert '"connected"' in connection.recv(MAX_WAIT_SECONDS)
    assert page.headers["Strict-Transport-Security"] == STRICT_TRANSPORT_SECURITY


def test_the_client_works_below_a_prefix(site: Site) -> None:
    with Client(site.user.url) as client:
        client.login(site.user.username, PASSWORD)
        submitted = {client.submit("b" * 900)["id"] for _ in range(3)}
        assert submitted <= {prompt["id"] for prompt in client.prompts(limit=10)}


def test_text_arrives_while_it_is_generated_and_then_its_event(site: Site, worker: Pipeline) -> None:
    with worker.autocommit_engine.connect() as connection:
        connection.execute(delete(Prompt).where(Prompt.status.in_(UNFINISHED)))
    generator, prompt_id = TwoParts(), site.user.submit()
    work = threading.Thread(target=dataclasses.replace(worker, generator=generator).process, args=[1])
    work.start()
    try:
        with follow(site.user, prompt_id) as stream:
            assert stream.next().data["text"] == "first"
            generator.may_end.set()
            assert list(stream)[-1].kind == "prompt.completed"
    finally:
        generator.may_end.set()
        work.join(MAX_WAIT_SECONDS)
    with Client(site.user.url) as client:
        client.login(site.user.username, PASSWORD)
        assert next(client.listen(since=0))["type"] == "prompt.completed"


def test_pages_of_other_origins_open_no_sockets(site: Site) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        site.open_socket("https://evil.example")


def test_operators_paths_are_not_published(site: Site) -> None:
    if site.is_shipped:
        for path in ("/metrics", "/metrics/", "//metrics", "/readyz", "/readyz/", "/%6detrics", "/x/../metrics"):
            assert site.get(f"{site.prefix}{path}").status_code in (400, 404), path
    assert site.get(f"{PREFIX}{site.prefix}/metrics").status_code == 404
    assert site.get(f"{site.prefix}/livez").status_code == 200


def test_a_body_over_the_limit_gets_the_errors_of_the_api(site: Site) -> None:
    if site.is_shipped:
        response = site.user.http.post("/prompts/", json={"prompt_text": "a" * 1_500_000})
        assert (response.status_code, response.headers["Content-Type"]) == (413, "application/problem+json")


def test_the_doctor_finds_nothing_wrong(site: Site, settings: Settings) -> None:
    if site.is_shipped:
        assert list(public_url(settings.model_copy(update={"public_url": site.user.url}))) == []


def test_a_client_cannot_choose_which_part_of_the_path_counts(upstreams: Upstreams) -> None:
    """gunicorn would take SCRIPT_NAME from clients of a proxy on this machine, and so `/x/metrics` for `/metrics`."""
    url = f"http://127.0.0.1:{upstreams.at_root}/x/livez"
    assert httpx.get(url, headers={"SCRIPT_NAME": "/x"}).status_code == 404


def test_the_proxies_wait_as_long_as_a_request_may() -> None:
    text = (reverse_proxies.FOLDER / "promptwire_proxy.conf").read_text()
    assert int(re.search(r"^proxy_read_timeout (\d+)s;", text, re.MULTILINE)[1]) > LONGEST_WAIT_SECONDS


def test_the_caddyfile_is_valid_as_shipped(tmp_path: Path) -> None:
    command = [
        reverse_proxies.find("caddy"),
        "adapt",
        "--validate",
        "--config",
        str(reverse_proxies.FOLDER / "Caddyfile"),
    ]
    environment = os.environ | {"XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    checked = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=MAX_WAIT_SECONDS, check=False
    )
    assert checked.returncode == 0, checked.stderr
