"""The audit of dependencies: what counts as a finding."""

from infra.audit import findings_of


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
