"""Check the model of the protocol: `make check-protocol`."""

import argparse
import sys

from infra.protocol import spin
from infra.protocol.checks import CHECKS


def main() -> int:
    parser = argparse.ArgumentParser(prog="make check-protocol", description=__doc__)
    parser.add_argument("--if-possible", action="store_true", help="do nothing if Spin or gcc is not installed")
    arguments = parser.parse_args()
    if missing := spin.missing_programs():
        print(f"{' and '.join(missing)} not found: install them (Debian, Ubuntu: apt-get install spin gcc).")
        if arguments.if_possible:
            print("The protocol's model is not checked.")
        return 0 if arguments.if_possible else 1
    try:
        return 0 if _check_model() else 1
    except spin.SpinError as error:
        print(error)
        return 1


def _check_model() -> bool:
    """Whether all checks of the model pass."""
    passed = True
    for check in CHECKS:
        result = spin.run(check)
        outcome = result.error or "passed"
        print(f"{check.name:36} {result.states:>10,} states {result.seconds:6.1f} s  {outcome}", flush=True)
        passed = passed and result.error is None
    return passed


if __name__ == "__main__":
    sys.exit(main())
