"""`make audit`: looks up what requirements*.txt pin in the Python advisory database.

A package that could not be looked up is a failure, as a vulnerable one is: pip-audit itself passes over it. Behind a
package mirror without advisories it would pass over all of them, so first it must find what a canary is known for.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ("requirements.txt", "requirements-dev.txt")
_FLAGS = ("--format=json", "--disable-pip", "--no-deps", "--progress-spinner=off")
CANARY = "jinja2==2.11.0"  # GHSA-g3rq-g295-4j3m


def main() -> int:
    parser = argparse.ArgumentParser(prog="make audit")
    parser.add_argument("--if-possible", action="store_true", help="pass where no advisory service can be reached")
    arguments = parser.parse_args()
    if not _service_works():
        print("NOT AUDITED: no advisory service answers here. It needs pypi.org itself; a mirror is not enough.")
        return 0 if arguments.if_possible else 1
    findings = [finding for name in REQUIREMENTS for finding in findings_of(audit(ROOT / name))]
    print("\n".join(findings) or "No known vulnerabilities, no package left out.")
    return 1 if findings else 0


def audit(requirements: Path) -> dict[str, Any]:
    """What pip-audit reports; nothing if it fails."""
    result = subprocess.run(
        [sys.executable, "-m", "pip_audit", *_FLAGS, "-r", str(requirements)],
        capture_output=True,
        text=True,
        check=False,
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


def _service_works() -> bool:
    with TemporaryDirectory() as folder:
        canary = Path(folder) / "canary.txt"
        canary.write_text(f"{CANARY}\n")
        return any(package.get("vulns") for package in audit(canary).get("dependencies", []))


if __name__ == "__main__":
    sys.exit(main())
