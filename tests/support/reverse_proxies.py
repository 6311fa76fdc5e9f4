"""nginx and Caddy with the files of infra/proxy, in front of two APIs: one at the root, one below a prefix.

Only addresses and paths of the files are replaced. Other sites are added beside theirs: with the prefix passed on, and
with nothing but what a socket needs, so that the API gets another `Host` and no `X-Forwarded-` headers.
"""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support import processes, watchdog
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, wait_until

FOLDER = ROOT / "infra" / "proxy"
PREFIX = "/promptwire"

#: The sites of each proxy, and the path below which each publishes the API.
NGINX_SITES = {
    "own host": "",
    "prefix removed": PREFIX,
    "prefix passed on": PREFIX,
    "own host, Host replaced": "",
    "prefix removed, Host replaced": PREFIX,
    "prefix passed on, Host replaced": PREFIX,
}
CADDY_SITES = {"own host": "", "prefix removed": PREFIX, "prefix passed on": PREFIX}


@dataclass(frozen=True)
class Upstreams:
    """The ports of the APIs, and a certificate with its key."""

    at_root: int
    below_prefix: int
    certificate: Path

    def port(self, prefix: str) -> int:
        return self.below_prefix if prefix else self.at_root


@contextlib.contextmanager
def nginx(upstreams: Upstreams, folder: Path) -> Iterator[dict[str, int]]:
    """Run nginx. Yields the port of each site."""
    program = find("nginx")
    ports = {site: processes.free_port() for site in NGINX_SITES}
    sites = _shipped_nginx(upstreams, ports) + "".join(
        _nginx_site(site, upstreams, port) for site, port in ports.items() if site not in ("own host", "prefix removed")
    )
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\ntypes {{}}\n{temporary}{sites}}}\n"
    )
    command = [program, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=MAX_WAIT_SECONDS, check=False)
    assert checked.returncode == 0, checked.stderr
    with _running(command, ports, folder):
        yield ports


@contextlib.contextmanager
def caddy(upstreams: Upstreams, folder: Path) -> Iterator[dict[str, int]]:
    """Run Caddy. Yields the port of each site."""
    program = find("caddy")
    ports = {site: processes.free_port() for site in CADDY_SITES}
    snippet, own_host, below_prefix = (FOLDER / "Caddyfile").read_text().split("# --- ")
    parts = own_host, below_prefix, below_prefix.replace("handle_path", "handle")
    # Without HTTP/3, whose UDP ports `free_port` uses as signs.
    made = "{\n\tadmin off\n\tauto_https disable_redirects\n\tservers {\n\t\tprotocols h1 h2\n\t}\n}\n"
    for (site, port), part in zip(ports.items(), parts, strict=True):
        made += snippet.replace("(promptwire)", f"({port})").replace(
            "127.0.0.1:8000", f"127.0.0.1:{upstreams.port(CADDY_SITES[site])}"
        )
        address = f"https://:{port} {{\n\tbind 127.0.0.1\n\ttls {upstreams.certificate} {upstreams.certificate}\n"
        part = re.sub(r"^[\w.]*example\.com \{\n", address, "# " + part, flags=re.MULTILINE)
        made += part.replace("import promptwire", f"import {port}")
    (folder / "Caddyfile").write_text(made)
    command = [program, "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    with _running(command, ports, folder, XDG_DATA_HOME=str(folder), XDG_CONFIG_HOME=str(folder)):
        yield ports


def find(name: str) -> str:
    program = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))
    if program is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install {name})")
    return program


def _shipped_nginx(upstreams: Upstreams, ports: Mapping[str, int]) -> str:
    own, below = (f"listen 127.0.0.1:{ports[site]} ssl" for site in ("own host", "prefix removed"))
    text = (FOLDER / "nginx.conf").read_text()
    text = text.replace("listen 443 ssl", own, 1).replace("listen 443 ssl", below, 1)
    for shipped, here in {
        "listen 80": f"listen 127.0.0.1:{processes.free_port()}",
        "127.0.0.1:8000": f"127.0.0.1:{upstreams.at_root}",
        "proxy_pass http://promptwire/": f"proxy_pass http://127.0.0.1:{upstreams.below_prefix}/",
        "/etc/nginx/promptwire_proxy.conf": f"{FOLDER}/promptwire_proxy.conf",
        "/etc/ssl/promptwire.crt": str(upstreams.certificate),
        "/etc/ssl/promptwire.key": str(upstreams.certificate),
    }.items():
        assert shipped in text
        text = text.replace(shipped, here)
    return text


def _nginx_site(site: str, upstreams: Upstreams, port: int) -> str:
    prefix = NGINX_SITES[site]
    directives = (
        "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
        "proxy_set_header Connection $promptwire_connection;"
        if "Host replaced" in site
        else f"include {FOLDER}/promptwire_proxy.conf;"
    )
    slash = "/" if "removed" in site else ""
    return f"""
server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {upstreams.certificate};
    ssl_certificate_key {upstreams.certificate};
    client_max_body_size 2m;
    location {prefix}/ {{ proxy_pass http://127.0.0.1:{upstreams.port(prefix)}{slash}; {directives} }}
}}
"""


@contextlib.contextmanager
def _running(command: list[str], ports: Mapping[str, int], folder: Path, **environment: str) -> Iterator[None]:
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | environment)
    watchdog.watch(process.pid)
    try:
        wait_until(lambda: process.poll() is not None or all(map(_answers, ports.values())), what="the proxy starting")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.kill()
        process.wait(MAX_WAIT_SECONDS)


def _answers(port: int) -> bool:
    try:
        httpx.get(f"https://127.0.0.1:{port}/")
    except httpx.TransportError:
        return False
    return True
