"""Where servers listen: free and taken ports, IPv6, and what `make up` finds out before anything is installed."""

import os
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from infra.local import preflight
from infra.local.data_folder import is_free
from infra.local.errors import CannotStartError
from infra.local.options import Options
from tests.support.processes import free_port
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, environment_of, make_settings
from worker.metrics_server import MetricsServer


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def check_first(folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """What `make up` runs first, in a folder of its own. It needs no package: -S hides the installed ones."""
    return subprocess.run(
        [sys.executable, "-S", "-m", "infra.local.preflight"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=MAX_WAIT_SECONDS,
    )


@pytest.mark.parametrize("where", ["environment", ".env"])
@pytest.mark.parametrize(("taken", "other"), [("PORT", "FLOWER_PORT"), ("FLOWER_PORT", "PORT")])
def test_a_taken_port_is_found_first(tmp_path: Path, where: str, taken: str, other: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ports = {taken: str(port), other: str(free_port())}
        if where == ".env":
            (tmp_path / ".env").write_text(
                "".join(f'export {name}="{value}" # mine\n' for name, value in ports.items())
            )
        done = check_first(tmp_path, **(ports if where == "environment" else {}))
    assert (done.returncode, done.stderr) == (1, f"{taken} {port} on 127.0.0.1 is taken: set {taken} to another one.\n")


def test_make_up_goes_on_with_free_ports(tmp_path: Path) -> None:
    done = check_first(tmp_path, PORT=str(free_port()), FLOWER_PORT=str(free_port()))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_another_stack_on_the_folder_is_named_instead_of_its_ports(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    with socket.create_server(("127.0.0.1", 0)) as server, preflight.locked(tmp_path):
        done = check_first(tmp_path, DATA_DIR=".", PORT=str(server.getsockname()[1]))
    assert done.returncode == 1
    assert done.stderr.startswith(f"Another stack runs on {tmp_path}: ")


def test_ports_that_a_killed_stack_left_taken_are_not_refused(tmp_path: Path) -> None:
    (tmp_path / "processes.json").write_text(f'{{"{os.getpid()}": 1.5}}')
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert check_first(tmp_path, DATA_DIR=".", PORT=str(server.getsockname()[1])).returncode == 0


@pytest.mark.parametrize(
    ("host", "ports", "says"),
    [
        ("127.0.0.1", {"PORT": "99999", "FLOWER_PORT": 5555}, "PORT must be a whole number from 1 to 65535."),
        ("127.0.0.1", {"PORT": "two", "FLOWER_PORT": 5555}, "PORT must be a whole number from 1 to 65535."),
        ("127.0.0.1", {"PORT": "5555", "FLOWER_PORT": 5555}, "PORT and FLOWER_PORT are the same"),
        ("192.0.2.1", {"PORT": 8000}, "LISTEN_ADDRESS=192.0.2.1 is not an address of this machine"),
        ("no-such-host.invalid", {"PORT": 8000}, "LISTEN_ADDRESS=no-such-host.invalid is not an address"),
    ],
)
def test_an_address_that_cannot_work_is_named(host: str, ports: dict[str, int | str], says: str) -> None:
    with pytest.raises(CannotStartError, match=re.escape(says)):
        preflight.check_ports(host, ports)


@needs_ipv6
def test_a_port_is_looked_up_in_the_family_of_its_address() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        assert not is_free("::1", port)
        assert not is_free("::", port)
    assert is_free("::1", port)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),  # noqa: S104
        ("::1", "http://[::1]:80"),
        ("::", "http://[::1]:80"),
    ],
)
def test_the_urls_of_a_stack_are_those_of_this_machine(address: str, url: str) -> None:
    assert Options(address, 8000, 5555, Path()).url(80) == url


def test_gunicorn_gets_an_ipv6_address_in_brackets() -> None:
    program = "import runpy; print(runpy.run_path('infra/gunicorn.conf.py')['bind'])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]} | environment_of(make_settings(listen_address="::", port=80)),
        capture_output=True,
        text=True,
        check=True,
        timeout=MAX_WAIT_SECONDS,
    )
    assert done.stdout == "[::]:80\n"


@needs_ipv6
def test_a_worker_serves_its_metrics_on_an_ipv6_address() -> None:
    port = free_port()
    settings = make_settings(listen_address="::1", worker_metrics_port=port, metrics_token="t")
    server = MetricsServer(settings)
    server.start()
    try:
        with pytest.raises(urllib.request.HTTPError, match="401"):
            urllib.request.urlopen(f"http://[::1]:{port}/metrics")
    finally:
        server.stop()
