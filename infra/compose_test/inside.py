"""The part of the test that runs in namespaces of its own, where a temporary engine cannot touch the machine."""

import subprocess
import sys
from pathlib import Path

from infra.compose_test import stand_ins
from infra.compose_test.deployment import Deployment
from infra.compose_test.engine import EngineError, TemporaryEngine
from infra.compose_test.scenario import run_scenario


def main(folder: Path, cgroup: str) -> int:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)  # for the sockets of the engine
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # The name server of this machine cannot be reached from here. Containers that look up the name of a stopped one
    # would wait for it; nothing listens on this address, so they are refused at once.
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    subprocess.run(["mount", "--bind", str(folder / "resolv.conf"), "/etc/resolv.conf"], check=True)
    engine = TemporaryEngine(folder / "engine", folder / "docker", cgroup)
    try:
        deployment = Deployment(folder / "promptwire", engine, {})
        deployment.drop_registry_references()
        engine.start()
        stand_ins.load(engine, folder / "root", deployment.folder, folder / "images")
    except EngineError as error:
        print(error)
        return 1
    return run_scenario(deployment, engine)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
