"""`make audit`: look up the packages in requirements.txt and requirements/*.txt in the Python advisory database.

A package that cannot be looked up is a failure, like a vulnerable one; pip-audit itself only skips it. Behind a package
mirror without advisories pip-audit would skip every package, so a canary with a known vulnerability is audited first.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ("requirements.txt", "requirements/minilm.txt", "requirements/otel.txt", "requirements/dev.txt")
_FLAGS = ("--format=json", "--disable-pip", "--no-deps", "--progress-spinner=off")
CANARY = "jinja2==2.11.0"  # GHSA-g3rq-g295-4j3m


def main() -> int:
    parser = argparse.ArgumentParser(prog="make audit")
    parser.add_argument("--if-possible", action="store_true", help="do not fail because no advisory service answers")
    arguments = parser.parse_args()
    canary = audit([CANARY])
    if not any(package.get("vulns") for package in canary.get("dependencies", [])):
        print(
            "NOT AUDITED: no advisory service answers. The audit needs pypi.org itself; a package mirror is not enough."
        )
        return 0 if arguments.if_possible and canary else 1
    pins = [pin for name in REQUIREMENTS for pin in parse_pins((ROOT / name).read_text())]
    findings = [finding for group in group_versions(pins) for finding in list_findings(audit(group))]
    print("\n".join(findings) or f"{len(pins)} pinned packages: all audited, no known vulnerability.")
    return 1 if findings else 0


def parse_pins(requirements: str) -> list[str]:
    """The `name==version` of each line, including those for other platforms, which pip-audit would skip."""
    return re.findall(r"^[\w.-]+==[^\s;]+", requirements, re.MULTILINE)


def group_versions(pins: list[str]) -> list[list[str]]:
    """Split the pins into groups with one version of each package, because pip-audit accepts no second one."""
    groups: list[dict[str, str]] = []
    for pin in dict.fromkeys(pins):
        name = pin.partition("==")[0]
        group = next((group for group in groups if name not in group), None)
        if group is None:
            groups.append(group := {})
        group[name] = pin
    return [list(group.values()) for group in groups]


def audit(pins: list[str]) -> dict[str, Any]:
    """pip-audit's report about these pins; empty if pip-audit fails."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "pins.txt"
        file.write_text("\n".join(pins))
        result = subprocess.run(
            [sys.executable, "-m", "pip_audit", *_FLAGS, "-r", str(file)], capture_output=True, text=True, check=False
        )
    try:
        report: dict[str, Any] = json.loads(result.stdout)
    except ValueError:
        return {}
    return report


def list_findings(report: dict[str, Any]) -> list[str]:
    """A line for each vulnerability, and for each package that was skipped."""
    lines = []
    for package in report.get("dependencies", []):
        if "skip_reason" in package:
            lines.append(f"{package['name']}: not audited: {package['skip_reason']}")
        lines += [
            f"{package['name']} {package['version']}: {found['id']}, fixed in {' '.join(found['fix_versions']) or '-'}"
            for found in package.get("vulns", [])
        ]
    return lines or ([] if report.get("dependencies") else ["pip-audit reported nothing"])


if __name__ == "__main__":
    sys.exit(main())
