"""The test: deploy, use, scale, disturb, stop and start again. Every step prints a line with its seconds."""

import re
import secrets
import time
from collections.abc import Callable

import httpx

from infra.compose_test.client import Burst, Listener, LostPromptError, User
from infra.compose_test.deployment import Deployment
from infra.compose_test.docs import read_blocks, read_commands
from infra.compose_test.engine import Engine, EngineError, TemporaryEngine
from infra.compose_test.images import find_problems

_SERVICES = {"postgres", "redis", "api", "worker", "flower"}
#: Secrets with the characters that mean something in URLs, in .env or to a shell, and those of `openssl rand -base64`.
_SECRETS = {
    name: f"/@+=:%?#&$!{secrets.token_hex(24)}"
    for name in ("JWT_SECRET_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "FLOWER_PASSWORD")
}
#: The rest of .env: room for bursts, answers that take a moment, and a quick recovery of what a killed worker had.
_SETTINGS = {
    "PROMPT_RATE_LIMIT": "1000/second",
    "SIMULATED_DELAY": "0.1",
    "LEASE_SECONDS": "6",
    "REAPER_SECONDS": "1",
    "SUBMIT_GRACE_SECONDS": "2",
}
_DISTURBANCES = {
    "restarts": "docker compose restart {service}",
    "is killed": "docker compose kill {service} && docker compose start {service}",
}
_BURST_PROMPTS = 60


class ScenarioError(Exception):
    """The deployed service does not do what the documentation says; the message says what."""


class Scenario:
    """The steps, in their order. They share one deployment and one user, `alice`."""

    def __init__(self, deployment: Deployment, engine: Engine) -> None:
        self._deployment, self._engine = deployment, engine
        self._alice = User(f"127.0.0.1:{deployment.api_port}", "alice", secrets.token_urlsafe(16))
        self._prompts: set[int] = set()

    def run(self) -> None:
        """Raises ScenarioError, EngineError, LostPromptError."""
        started_at = time.monotonic()
        steps: list[tuple[str, Callable[[], None]]] = [
            ("The documented commands deploy the service; secrets have all characters", self.deploy),
            ("The images contain the code and its packages only", self.inspect_images),
            ("A prompt is answered, and a socket gets the answer", self.use),
            ("Building again recreates nothing", self.build_again),
            *(
                (f"{service} {what}: no prompt is lost or answered twice", self._disturbance(service, what, command))
                for service in ("redis", "postgres", "worker", "api")
                for what, command in _DISTURBANCES.items()
            ),
            ("Flower lists three workers, to those who know the password", self.scale),
            ("All data is kept by `down` and `up`", self.recreate),
            ("A backup is restored over what was added since, and all logins end", self.restore),
            ("Containers come back after a restart of the engine", self.restart_engine),
            ("A setting that cannot work stops the start, with a sentence", self.refuse_setting),
            ("No secret is in a log", self.search_logs),
        ]
        for sentence, step in steps:
            step_started_at = time.monotonic()
            step()
            print(f"{time.monotonic() - step_started_at:7.1f} s  {sentence}.", flush=True)
        seconds = time.monotonic() - started_at
        print(f"{seconds:7.1f} s  {len(steps)} steps, {len(self._prompts)} prompts, none lost, none answered twice.")

    def deploy(self) -> None:
        make_dotenv, up, create_user = read_commands(
            self._deployment.folder / "docs/deployment.md", "Docker, on one machine"
        )
        self._deployment.run(make_dotenv)
        mode = (self._deployment.folder / ".env").stat().st_mode & 0o777
        if mode != 0o600:
            raise ScenarioError(f".env has the mode {mode:o}, so other users can read the secrets.")
        # Compose would replace a dollar that is not in single quotes.
        self._deployment.configure(**{name: f"'{secret}'" for name, secret in _SECRETS.items()}, **_SETTINGS)
        self._deployment.run(up)
        self._deployment.type(create_user, [self._alice.password] * 2)

    def inspect_images(self) -> None:
        tag = self._engine.variables.get("TAG", "latest")
        for name in ("api", "worker"):
            if problems := find_problems(self._engine, self._deployment.folder, name, tag):
                raise ScenarioError("\n".join(problems))

    def use(self) -> None:
        self._alice.login()
        listener = Listener(self._alice)
        prompt = self._alice.submit("What is a tide?", wait=30)
        if prompt["status"] != "completed":
            raise ScenarioError(f"The prompt was not answered within 30 s: {prompt}")
        listener.wait_for({prompt["id"]})
        listener.stop()
        self._prompts.add(prompt["id"])

    def build_again(self) -> None:
        before = self._containers()
        self._deployment.run("docker compose up --build --detach --wait")
        if self._containers() != before:
            raise ScenarioError(f"Containers were recreated: {before} became {self._containers()}.")

    def scale(self) -> None:
        self._deployment.run("docker compose up --detach --wait --scale worker=3")
        url = f"http://127.0.0.1:{self._deployment.flower_port}/api/workers?refresh=1"
        if (status := httpx.get(url, timeout=30).status_code) != 401:
            raise ScenarioError(f"Flower answers {status} to a request without a password.")
        deadline = time.monotonic() + 30
        while len(workers := httpx.get(url, timeout=30, auth=("admin", _SECRETS["FLOWER_PASSWORD"])).json()) != 3:
            if time.monotonic() > deadline:
                raise ScenarioError(f"Flower lists {sorted(workers)}.")
            time.sleep(0.5)

    def _disturbance(self, service: str, what: str, command: str) -> Callable[[], None]:
        def disturb() -> None:
            listener = Listener(self._alice)
            burst = Burst(self._alice, f"{service} {what}", _BURST_PROMPTS)
            self._deployment.run(command.format(service=service))
            ids = burst.ids()
            listener.wait_for(ids)
            listener.stop()
            self._prompts |= ids
            self._check_prompts()

        return disturb

    def recreate(self) -> None:
        self._deployment.run("docker compose down")
        self._deployment.run("docker compose up --detach --wait")
        self._check_prompts()
        self.use()

    def restore(self) -> None:
        back_up, restore = read_blocks(self._deployment.folder / "docs/operations.md", "With Docker Compose")
        self._deployment.run(back_up)
        self._alice.submit("Not in the backup", wait=30)
        self._deployment.run(restore)
        if (status := self._alice.try_token()) != 401:
            raise ScenarioError(f"After a restore, an earlier login gets {status}.")
        self._alice.login()
        self._check_prompts()
        self.use()

    def restart_engine(self) -> None:
        if not isinstance(self._engine, TemporaryEngine):
            print("           The engine of this machine is not restarted.")
            return
        self._engine.stop()
        self._engine.start()
        self._deployment.wait_until_healthy(_SERVICES, seconds=300)
        self._check_prompts()
        self.use()

    def refuse_setting(self) -> None:
        """The commands that docs/deployment.md names say which setting is wrong, and `up` works once it is right."""
        self._deployment.configure(LEASE_SECONDS="soon")
        up = self._deployment.run("docker compose up --detach --wait || echo FAILED")
        if "FAILED" not in up:
            raise ScenarioError(f"A bad setting was accepted: {up}")
        docs = self._deployment.folder / "docs"
        commands = [
            *re.findall(r"`(docker compose logs [^`]*)`", (docs / "deployment.md").read_text()),
            *re.findall(r"`(docker compose run [^`]*infra\.doctor)`", (docs / "operations.md").read_text()),
        ]
        for command in commands:
            shown = self._deployment.run(command, check=False)
            if "LEASE_SECONDS" not in shown or "Traceback" in shown:
                raise ScenarioError(f"{command} does not show what is wrong:\n{shown}")
        self._deployment.configure(LEASE_SECONDS=_SETTINGS["LEASE_SECONDS"])
        self._deployment.run("docker compose up --detach --wait")
        self._check_prompts()

    def search_logs(self) -> None:
        logs = self._deployment.run("docker compose logs --no-color")
        all_secrets = {**_SECRETS, "alice's password": self._alice.password, "alice's token": self._alice.token}
        found = [name for name, secret in all_secrets.items() if secret in logs]
        if found:
            raise ScenarioError(f"The logs contain {', '.join(found)}.")

    def _containers(self) -> dict[str, str]:
        return {each.container: each.name for each in self._deployment.services(stopped=True)}

    def _check_prompts(self) -> None:
        """Every submitted prompt is there once, and completed."""
        listed = list(self._alice.prompts())
        if {prompt["id"] for prompt in listed} != self._prompts or len(listed) != len(self._prompts):
            raise ScenarioError(f"{len(listed)} prompts are listed, {len(self._prompts)} were submitted.")
        unfinished = [prompt for prompt in listed if prompt["status"] != "completed"]
        if unfinished:
            raise ScenarioError(f"{len(unfinished)} prompts are not completed: {unfinished[0]}")


def run_scenario(deployment: Deployment, engine: Engine) -> int:
    """Run all steps. Return 0, or print what is wrong and return 1."""
    try:
        Scenario(deployment, engine).run()
    except (ScenarioError, EngineError, LostPromptError, httpx.HTTPError) as error:
        print(deployment.run("docker compose ps --all; docker compose logs --no-color --tail 50", check=False))
        print(f"FAILED: {error}")  # last: who reads the end of a long log wants the reason
        return 1
    return 0
