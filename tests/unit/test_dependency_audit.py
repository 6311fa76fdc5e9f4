"""The audit of dependencies: what counts as a finding."""

import pytest

from infra.checks.dependency_audit import REQUIREMENTS, ROOT, findings_of, pins_of, without_twins


def test_every_pin_is_audited_also_of_other_platforms() -> None:
    text = "a==1 ; sys_platform == 'win32' \\\n    --hash=sha256:0\nb-c.d==2.0 \\\n    # via a==3\n"
    assert pins_of(text) == ["a==1", "b-c.d==2.0"]


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_is_pinned(name: str) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if line[:1].isalnum()]
    assert len(pins_of("\n".join(lines))) == len(lines) > 10


def test_two_versions_of_a_package_are_audited_apart() -> None:
    assert without_twins(["a==1", "b==1", "a==2", "a==1"]) == [["a==1", "b==1"], ["a==2"]]


def test_a_vulnerability_is_a_finding() -> None:
    vulnerable = {"name": "a", "version": "1", "vulns": [{"id": "GHSA-1", "fix_versions": ["2"]}]}
    assert findings_of({"dependencies": [vulnerable]}) == ["a 1: GHSA-1, mended in 2"]


def test_a_package_that_was_passed_over_is_a_finding() -> None:
    skipped = {"name": "a", "skip_reason": "not found"}
    sound = {"name": "b", "version": "1", "vulns": []}
    assert findings_of({"dependencies": [sound, skipped]}) == ["a: not audited: not found"]


def test_no_report_is_a_finding() -> None:
    assert findings_of({}) == ["pip-audit reported nothing"]


def test_sound_packages_are_none() -> None:
    assert findings_of({"dependencies": [{"name": "a", "version": "1", "vulns": []}]}) == []
