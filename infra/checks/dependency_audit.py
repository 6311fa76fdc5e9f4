"""`make audit`: looks up what requirements.txt and requirements/*.txt pin in the Python advisory database.

A package that could not be looked up is a failure, as a vulnerable one is: pip-audit itself passes over it. Behind a
package mirror without advisories it would pass over all of them, so first it must find what a canary is known for.
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
    parser.add_argument("--if-possible", action="store_true", help="pass where no advisory service can be reached")
    arguments = parser.parse_args()
    canary = audit([CANARY])
    if not any(package.get("vulns") for package in canary.get("dependencies", [])):
        print("NOT AUDITED: no advisory service answers here. It needs pypi.org itself; a mirror is not enough.")
        return 0 if arguments.if_possible and canary else 1
    pins = [pin for name in REQUIREMENTS for pin in pins_of((ROOT / name).read_text())]
    findings = [finding for some in without_twins(pins) for finding in findings_of(audit(some))]
    print("\n".join(findings) or f"{len(pins)} pinned packages: no known vulnerability, none left out.")
    return 1 if findings else 0


def pins_of(requirements: str) -> list[str]:
    """The `name==version` of each line, also of those for other platforms, which pip-audit would leave out."""
    return re.findall(r"^[\w.-]+==[^\s;]+", requirements, re.MULTILINE)


def without_twins(pins: list[str]) -> list[list[str]]:
    """The pins in lists that have each package once, which is all that pip-audit takes."""
    lists: list[dict[str, str]] = []
    for pin in dict.fromkeys(pins):
        name = pin.partition("==")[0]
        fitting = next((some for some in lists if name not in some), None)
        if fitting is None:
            lists.append(fitting := {})
        fitting[name] = pin
    return [list(some.values()) for some in lists]


def audit(pins: list[str]) -> dict[str, Any]:
    """What pip-audit reports of these; nothing if it fails."""
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


def findings_of(report: dict[str, Any]) -> list[str]:
    """A line for each vulnerability, and for each package that was passed over."""
    lines = []
    for package in report.get("dependencies", []):
        if "skip_reason" in package:
            lines.append(f"{package['name']}: not audited: {package['skip_reason']}")
        lines += [
            f"{package['name']} {package['version']}: {found['id']}, mended in {' '.join(found['fix_versions']) or '-'}"
            for found in package.get("vulns", [])
        ]
    return lines or ([] if report.get("dependencies") else ["pip-audit reported nothing"])


if __name__ == "__main__":
    sys.exit(main())
