"""The dependency audit: what counts as a finding."""

import pytest

from infra.checks.dependency_audit import REQUIREMENTS, ROOT, group_versions, list_findings, parse_pins


def test_pins_for_other_platforms_are_audited_too() -> None:
    text = "a==1 ; sys_platform == 'win32' \\\n    --hash=sha256:0\nb-c.d==2.0 \\\n    # via a==3\n"
    assert parse_pins(text) == ["a==1", "b-c.d==2.0"]


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_is_pinned(name: str) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if line[:1].isalnum()]
    assert len(parse_pins("\n".join(lines))) == len(lines) > 10


def test_two_versions_of_a_package_are_audited_separately() -> None:
    assert group_versions(["a==1", "b==1", "a==2", "a==1"]) == [["a==1", "b==1"], ["a==2"]]


def test_a_vulnerability_is_a_finding() -> None:
    vulnerable = {"name": "a", "version": "1", "vulns": [{"id": "GHSA-1", "fix_versions": ["2"]}]}
    assert list_findings({"dependencies": [vulnerable]}) == ["a 1: GHSA-1, fixed in 2"]


def test_a_skipped_package_is_a_finding() -> None:
    skipped = {"name": "a", "skip_reason": "not found"}
    safe = {"name": "b", "version": "1", "vulns": []}
    assert list_findings({"dependencies": [safe, skipped]}) == ["a: not audited: not found"]


def test_a_missing_report_is_a_finding() -> None:
    assert list_findings({}) == ["pip-audit reported nothing"]


def test_a_package_without_vulnerabilities_is_not_a_finding() -> None:
    assert list_findings({"dependencies": [{"name": "a", "version": "1", "vulns": []}]}) == []
