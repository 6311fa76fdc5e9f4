"""The TypeScript client as npm publishes it, its tests compiled against it, and a server of both for pages."""

import contextlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

from tests.support import npm
from tests.support.servers import MAX_WAIT_SECONDS, ROOT

CLIENT = ROOT / "api" / "client" / "typescript"
SUITES = ROOT / "tests" / "typescript"

IDB_KEYVAL = ROOT / "api" / "static" / "vendor" / "idb-keyval.js"

IMPORTS = {"promptwire": "/node_modules/promptwire/dist/index.js", "idb-keyval": f"/{IDB_KEYVAL.name}"}
IMPORT_MAP = f'<script type="importmap">{json.dumps({"imports": IMPORTS})}</script>'


def build(folder: Path) -> None:
    """Compile the tests into the folder, against the package as npm packs it.

    Both are compiled with all of TypeScript's checks, so this fails where a type is wrong.
    """
    packages = npm.install(CLIENT)
    shutil.copytree(SUITES, folder, dirs_exist_ok=True)
    shutil.copy(IDB_KEYVAL, folder)
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "source"
        shutil.copytree(CLIENT, source, ignore=shutil.ignore_patterns("node_modules", "dist"))
        (source / "node_modules").symlink_to(packages)
        run([*npm.npm(), "pack"], source)
        with tarfile.open(next(source.glob("promptwire-*.tgz"))) as packed:
            packed.extractall(temporary, filter="data")
        (folder / "node_modules").mkdir()
        shutil.move(Path(temporary) / "package", folder / "node_modules" / "promptwire")
    run([npm.node(), str(packages / "typescript" / "bin" / "tsc")], folder)


def run(command: list[str], folder: Path, **variables: str) -> str:
    """Run a command of Node in a folder. Returns what it printed; fails if the command does."""
    path = f"{Path(npm.node()).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path} | variables
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=MAX_WAIT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class _Handler(SimpleHTTPRequestHandler):
    """The files of the folder, and what clients cannot do themselves."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".js": "text/javascript"}

    def __init__(
        self, *arguments: object, kill: Callable[[], None], files: Path, over: Event, **options: object
    ) -> None:
        self._kill, self._files, self._over = kill, files, over
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        if self.path == "/silent/account/":
            self._answer("application/json", b'{"username": "alice"}')
        elif self.path.startswith("/silent/"):  # a server that does not answer, or whose stream has no event
            if self.path.endswith("/stream/"):
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                self.wfile.flush()
            self._over.wait(MAX_WAIT_SECONDS)
        elif self.path == "/":
            self._answer("text/html", f'<!doctype html><link rel="icon" href="data:,">{IMPORT_MAP}'.encode())
        else:
            super().do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        _, action, name = (*self.path.split("/"), "")[:3]
        if action == "silent":
            self._over.wait(MAX_WAIT_SECONDS)
        elif action == "kill":
            self._kill()
        elif action == "append":
            with (self._files / name).open("ab") as file:
                file.write(body)
        self._answer("text/plain", str(self._files / name).encode())

    def _answer(self, content_type: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def control_server(modules: Path, files: Path, kill: Callable[[], None]) -> Iterator[str]:
    """Serve modules to pages, and do for the tests what a client cannot.

    `POST /kill` calls `kill`. `POST /path/NAME` returns the path of a file, to which `POST /append/NAME` writes. Below
    `/silent/` is a server that never answers.
    """
    over = Event()
    handler = partial(_Handler, directory=str(modules), kill=kill, files=files, over=over)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        # Chromium does not let a page without a name send requests to this machine.
        yield f"http://localhost:{server.server_port}"
        over.set()
        server.shutdown()
