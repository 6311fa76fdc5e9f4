"""The files of the playground and their security headers. `tests/browser` tests its behaviour."""

import re

import pytest
from flask import Flask

from api.routes.page import CONTENT_SECURITY_POLICY, FOLDER
from tests.support.client import assert_problem

NAMES = sorted(path.name for path in FOLDER.iterdir())
SCRIPTS = [name for name in NAMES if name.endswith(".js")]
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


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


def test_the_security_policy_allows_no_foreign_and_no_inline_content() -> None:
    policy = dict(part.split(" ", 1) for part in CONTENT_SECURITY_POLICY.split("; "))
    assert policy.pop("require-trusted-types-for") == "'script'"
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
    assert re.findall(r"""\b(?:src|href)="(?!static/|docs/|\./"|#)[^"]*""", html) == []
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
    imported = re.findall(r"""\bfrom "\./([^"]+)";""", (FOLDER / name).read_text())
    assert set(imported) <= set(SCRIPTS)
    assert len(imported) == (FOLDER / name).read_text().count("import ")
