"""The files of the playground and their security headers. `tests/browser` tests its behaviour."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from api.routes.page import CONTENT_SECURITY_POLICY, FOLDER
from infra import vendor
from tests.support.client import assert_problem

NAMES = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.*"))
SCRIPTS = [name for name in NAMES if name.endswith(".js") and "/" not in name]
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "txt": "text/plain"}


@pytest.mark.parametrize("path", ["/", *(f"/static/{name}" for name in NAMES)])
def test_each_file_is_served_with_its_media_type_and_the_security_policy(app: Flask, path: str) -> None:
    response = app.test_client().get(path, buffered=True)  # closes the file
    assert response.status_code == 200
    assert response.data == (FOLDER / (path.removeprefix("/static/").strip("/") or "index.html")).read_bytes()
    assert response.mimetype == TYPES.get(path.rpartition(".")[2], "text/html")
    assert response.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-cache"
    again = app.test_client().get(path, headers={"If-None-Match": response.headers["ETag"]}, buffered=True)
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize(("path", "root"), [("/p/7", "../"), ("/p/7/", "../../")])
def test_the_page_of_a_prompt_is_the_page_with_addresses_relative_to_its_own(app: Flask, path: str, root: str) -> None:
    response = app.test_client().get(path)
    assert response.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    html = (FOLDER / "index.html").read_text()
    expected = re.sub(r'="(static/|docs/)', rf'="{root}\1', html).replace('href="./', f'href="{root}')
    assert response.text == expected
    assert app.test_client().get(path, headers={"If-None-Match": response.headers["ETag"]}).status_code == 304
    assert_problem(app.test_client().get("/p/seven"), 404)


def test_the_page_knows_whether_registration_is_open(make_app: Callable[..., Any]) -> None:
    for is_open, content in ((True, "open"), (False, "closed")):
        page = make_app(registration=is_open)[0].test_client().get("/").text
        assert f'<meta name="registration" content="{content}">' in page


def test_the_security_policy_allows_no_foreign_and_no_inline_content() -> None:
    policy = dict(part.split(" ", 1) for part in CONTENT_SECURITY_POLICY.split("; "))
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert policy.pop("trusted-types") == "dompurify worker"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert set(policy.values()) == {"'none'", "'self'"}


@pytest.mark.parametrize("path", ["/static/none.js", "/static/..%2fapp.py", "/static/../app.py", "/static/"])
def test_paths_outside_the_folder_are_404(app: Flask, path: str) -> None:
    assert_problem(app.test_client().get(path), 404)


@pytest.mark.parametrize(
    ("page", "files"),
    [
        ("index.html", {"app.js", "icon.svg", "style.css", "theme.js"}),
        ("console.html", {"console.js", "console.css", "icon.svg", "style.css", "theme.js"}),
    ],
)
def test_a_page_loads_only_its_own_files_and_has_no_inline_code(page: str, files: set[str]) -> None:
    html = (FOLDER / page).read_text()
    assert re.findall(r"""\b(?:src|href)="(?!static/|docs/|\./|#)[^"]*""", html) == []
    assert re.findall(r"<style|\bstyle=|\bon[a-z]+=|<script(?![^>]*\bsrc=)", html) == []
    assert {name for name in NAMES if f'"static/{name}"' in html} == files
    assert all("http" not in (FOLDER / name).read_text() for name in files if name.endswith(".css"))


@pytest.mark.parametrize(("path", "root"), [("/admin", ""), ("/admin/", "../")])
def test_the_console_finds_its_files_from_both_addresses(app: Flask, path: str, root: str) -> None:
    response = app.test_client().get(path)
    assert response.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    addresses = re.findall(r"""\b(?:src|href)="([^"#][^"]*)""", response.text)
    assert len(addresses) == 8
    assert {each.removeprefix(root) for each in addresses} >= {"static/console.js", "docs/"}
    assert all(each.startswith(root) for each in addresses)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_never_parse_text_as_html(name: str) -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|setHTML|\beval\b"
    )
    assert re.findall(forbidden, (FOLDER / name).read_text()) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_import_only_existing_scripts(name: str) -> None:
    script = (FOLDER / name).read_text()
    imported = re.findall(r"""\b(?:from |import\()"\./([^"]+)"\)?;""", script)
    assert set(imported) <= {
        *SCRIPTS,
        "vendor/highlight.js",
        "vendor/idb-keyval.js",
        "vendor/marked.js",
        "vendor/purify.js",
    }
    assert len(imported) == len(re.findall(r"\bimport\b[ (]", script))
    assert len(script.splitlines()) <= 300


def test_libraries_are_the_pinned_ones_with_their_licences() -> None:
    assert (vendor.FOLDER / vendor.SUMS).read_text() == vendor.sums()
    pins = json.loads(vendor.PINS.read_text()).values()
    named = {target for pin in pins for target in pin["files"].values()}
    assert {path.name for path in vendor.FOLDER.iterdir()} == named | {vendor.SUMS}
    for pin in pins:
        library, licence = pin["files"].values()
        # idb-keyval does not name its version.
        assert library == "idb-keyval.js" or pin["version"] in (vendor.FOLDER / library).read_text()[:2000]
        assert (pin["license"], licence) in {
            ("MIT", "marked.LICENSE.txt"),
            ("MPL-2.0 OR Apache-2.0", "purify.LICENSE.txt"),
            ("BSD-3-Clause", "highlight.LICENSE.txt"),
            ("Apache-2.0", "idb-keyval.LICENSE.txt"),
        }
        assert "copyright" in (vendor.FOLDER / licence).read_text().lower()
