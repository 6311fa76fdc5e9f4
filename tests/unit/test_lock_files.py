"""The lock files: a base, files that add to it, and what `make lock` leaves out of them."""

import re
import tomllib
from itertools import chain

import pytest

from infra.lock import BASE, LOCKS, ROOT, difference, pins_of

_A = "a==1 \\\n    --hash=sha256:00\n    # via b\n"
_B = "b==2 ; sys_platform == 'win32' \\\n    --hash=sha256:01\n"
_B_EVERYWHERE = "b==2 \\\n    --hash=sha256:01\n"


def read(path: str) -> str:
    return (ROOT / path).read_text()


def test_pins_are_read_with_their_hashes_and_comments() -> None:
    assert pins_of(f"# generated\n-r other.txt\n{_A}{_B}") == {"a==1": _A, "b==2 ; sys_platform == 'win32'": _B}


def test_a_delta_leaves_out_what_an_included_file_pins() -> None:
    assert difference(_A + _B, [_A]) == _B


def test_a_delta_keeps_a_pin_that_an_included_file_has_for_fewer_platforms() -> None:
    assert difference(_A + _B_EVERYWHERE, [_A + _B]) == _B_EVERYWHERE


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.path)
def test_a_lock_file_includes_its_base_and_repeats_none_of_its_pins(lock) -> None:
    assert read(lock.path).startswith(lock.header)
    included = set(chain.from_iterable(pins_of(read(path)) for path in lock.includes))
    pins = pins_of(read(lock.path)).keys()
    assert pins
    assert not pins & included


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.path)
def test_every_pin_has_hashes_and_no_lock_file_names_a_package_index(lock) -> None:
    text = read(lock.path)
    assert all("--hash=sha256:" in pin for pin in pins_of(text).values())
    assert not re.search(r"://|--(extra-)?index-url|--find-links", text)


def test_every_declared_package_is_pinned() -> None:
    declared = tomllib.loads(read("pyproject.toml"))
    groups, extras = declared["dependency-groups"], declared["project"]["optional-dependencies"]
    wanted = {
        BASE: declared["project"]["dependencies"] + extras["client"],
        "requirements/minilm.txt": extras["minilm"],
        "requirements/otel.txt": extras["otel"],
        "requirements/dev.txt": groups["dev"],
        "requirements/infra.txt": groups["infra"],
    }
    for lock in LOCKS:
        pinned = {name.partition("==")[0] for path in (*lock.includes, lock.path) for name in pins_of(read(path))}
        assert {re.split(r"[\[<>=!]", requirement)[0] for requirement in wanted[lock.path]} <= pinned


def test_lock_files_are_marked_as_generated() -> None:
    marked = [line.split()[0] for line in read(".gitattributes").splitlines() if line.endswith(" linguist-generated")]
    assert {path for pattern in marked for path in ROOT.glob(pattern)} == {ROOT / lock.path for lock in LOCKS}
