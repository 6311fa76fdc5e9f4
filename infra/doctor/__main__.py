"""`promptwire-doctor`: looks at everything that has to be right, with the settings of this environment.

From a checkout: `python -m infra.doctor`.

Exit code 0 if nothing is wrong, 1 if something is. What it could not look at is `skipped`, with the reason.
"""

import json
import sys
from collections.abc import Iterator
from typing import NamedTuple

import click

from infra.doctor import Check, Finding, NotCheckedError, Severity, network, providers, settings, stores
from shared.cli_errors import run
from shared.settings import Settings, SettingsError, load_settings
from shared.version import get_version

CHECKS = (
    Check("profile", settings.profile),
    Check("secrets", settings.secrets),
    Check("time-outs", settings.timeouts),
    Check("postgres", stores.postgres),
    Check("vector store", stores.vector_store),
    Check("redis", stores.redis),
    Check("clocks", stores.clocks),
    Check("generator", providers.generator),
    Check("embedder", providers.embedder),
    Check("embedder and index", stores.embedders),
    Check("workers", network.workers),
    Check("public URL", network.public_url),
    Check("flower", network.flower),
)


class Line(NamedTuple):
    """A line of the report. `state` is ok, beware, wrong, or skipped."""

    state: str
    check: str
    problem: str = ""
    remedy: str = ""


@click.command()
@click.version_option(get_version(), prog_name="promptwire-doctor")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
def main(as_json: bool) -> None:
    """Say what is wrong with this installation, and what to do."""
    lines = list(examine())
    for line in lines:
        click.echo(json.dumps(line._asdict()) if as_json else _shown(line))
    if any(line.state == Severity.WRONG for line in lines):
        sys.exit(1)


def examine() -> Iterator[Line]:
    """The whole report."""
    try:
        loaded = load_settings()
    except SettingsError as error:
        for sentence in str(error).splitlines():
            yield Line(Severity.WRONG, "settings", sentence, "See .env.example and docs/settings.md.")
        return
    yield Line("ok", "settings")
    for check in CHECKS:
        yield from _made(check, loaded)


def _made(check: Check, loaded: Settings) -> Iterator[Line]:
    try:
        findings: list[Finding] = list(check.look(loaded))
    except NotCheckedError as error:
        yield Line("skipped", check.name, str(error))
        return
    except SettingsError as error:
        findings = [Finding(str(error), "See docs/settings.md.")]
    except Exception as error:  # what nobody has thought of must not hide the rest
        findings = [Finding(f"It could not be looked at ({type(error).__name__}: {error}).", "See its settings.")]
    for found in findings:
        yield Line(found.severity, check.name, found.problem, found.remedy)
    if not findings:
        yield Line("ok", check.name)


def _shown(line: Line) -> str:
    colour = {"ok": "green", "beware": "yellow", "wrong": "red"}.get(line.state)
    text = f"{click.style(f'{line.state:8}', fg=colour)} {line.check:20} {line.problem}".rstrip()
    return text + (f"\n{'':30}→ {line.remedy}" if line.remedy else "")


def cli() -> None:
    """Run the `promptwire-doctor` command."""
    run(main)


if __name__ == "__main__":
    cli()
