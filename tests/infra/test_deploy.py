"""infra/aws/deploy.sh, with a fake AWS CLI that stores task definitions and services in a file."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import ROOT

pytestmark = pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")

AWS = f"""#!{sys.executable}
import json, os, pathlib, sys

file = pathlib.Path(os.environ["AWS_STATE"])
state = json.loads(file.read_text())
group, verb, *rest = sys.argv[1:]
given = {{name: rest[i + 1] for i, name in enumerate(rest) if name.startswith("--")}}
state["calls"].append(verb if verb != "wait" else "wait " + rest[0])
answer = ""
if verb == "describe-task-definition":
    family = given["--task-definition"]
    image = "1.dkr.ecr.eu-central-1.amazonaws.com/" + family + ":old"
    answer = {{
        "family": family, "revision": 7, "status": "ACTIVE", "taskDefinitionArn": family + ":7", "cpu": "256",
        "containerDefinitions": [{{"name": family, "image": image}}, {{"name": "metrics", "image": image}}],
    }}
elif verb == "register-task-definition":
    written = json.loads(pathlib.Path(given["--cli-input-json"].removeprefix("file://")).read_text())
    state["registered"].append(written)
    answer = written["family"] + ":8"
elif verb == "run-task":
    answer = "task/1"
    state["ran"] = [given["--task-definition"], given["--network-configuration"]]
elif verb == "describe-tasks":
    answer = state["exit_code"]
elif verb == "update-service":
    if not state["rolls_back"]:
        state["services"][given["--service"]] = given["--task-definition"]
elif verb == "describe-services":
    service = given["--services"]
    network = {{"awsvpcConfiguration": {{"subnets": ["s"]}}}}
    answer = network if "networkConfiguration" in given["--query"] else state["services"][service]
file.write_text(json.dumps(state))
print(answer if isinstance(answer, str) else json.dumps(answer))
"""


class Account:
    """The fake AWS account: its state, and the calls it received."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "aws").write_text(AWS)
        (folder / "aws").chmod(0o755)
        old = {name: f"promptwire-{name}:7" for name in ("api", "worker", "flower")}
        self.update(calls=[], registered=[], ran=None, exit_code="0", rolls_back=False, services=old)

    def update(self, **state: object) -> None:
        before = self.state if (self._folder / "state.json").exists() else {}
        (self._folder / "state.json").write_text(json.dumps(before | state))

    @property
    def state(self) -> dict:
        return json.loads((self._folder / "state.json").read_text())

    def deploy(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self._folder}:{os.environ['PATH']}", "AWS_STATE": str(self._folder / "state.json")}
        command = [str(ROOT / "infra/aws/deploy.sh"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def account(tmp_path: Path) -> Account:
    return Account(tmp_path)


def test_a_deployment_migrates_and_then_updates_the_services(account: Account) -> None:
    result = account.deploy("abc123")
    assert result.returncode == 0, result.stderr
    state = account.state
    assert state["ran"][0] == "promptwire-migrate:8"
    assert json.loads(state["ran"][1]) == {"awsvpcConfiguration": {"subnets": ["s"]}}
    assert state["services"] == {name: f"promptwire-{name}:8" for name in ("api", "worker", "flower")}
    assert state["calls"].index("wait tasks-stopped") < state["calls"].index("update-service")


def test_a_deployment_changes_only_the_tags_of_images(account: Account) -> None:
    account.deploy("abc123")
    images = [
        container["image"] for written in account.state["registered"] for container in written["containerDefinitions"]
    ]
    assert len(images) == 8
    assert all(image.endswith(":abc123") and image.count(":") == 1 for image in images)
    assert {"family", "containerDefinitions", "cpu"} == set(account.state["registered"][0])


def test_a_failed_migration_leaves_the_services_unchanged(account: Account) -> None:
    account.update(exit_code="1")
    result = account.deploy("abc123")
    assert result.returncode == 1
    assert "The migration failed (1)" in result.stderr
    assert "update-service" not in account.state["calls"]


def test_a_rolled_back_deployment_fails(account: Account) -> None:
    account.update(rolls_back=True)
    result = account.deploy("abc123")
    assert result.returncode == 1
    assert "rolled back to promptwire-api:7" in result.stderr


def test_going_back_to_older_images_does_not_migrate(account: Account) -> None:
    assert account.deploy("abc123", "--back").returncode == 0
    assert "run-task" not in account.state["calls"]
    assert account.state["services"]["api"] == "promptwire-api:8"


def test_a_deployment_without_a_tag_prints_the_usage(account: Account) -> None:
    result = account.deploy()
    assert (result.returncode, account.state["calls"]) == (1, [])
    assert "usage: infra/aws/deploy.sh TAG" in result.stderr
