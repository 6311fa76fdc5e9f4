"""`promptwire-doctor`: check this installation with the settings of this environment.

From a checkout: `python -m infra.doctor`.

The exit code is 1 if something is wrong, otherwise 0. A check that cannot run is reported as `skipped`, with a reason.
"""

import json
import sys
from collections.abc import Iterator
from typing import NamedTuple

import click

from infra.doctor import (
    Check,
    Finding,
    NotCheckedError,
    Observation,
    Severity,
    network,
    oidc,
    providers,
    public_url,
    settings,
    stores,
    webhooks,
)
from shared.cli_errors import run
from shared.settings import Settings, SettingsError, load_settings
from shared.version import get_version

CHECKS = (
    Check("profile", settings.profile),
    Check("secrets", settings.secrets),
    Check(".env", settings.dotenv_file),
    Check("time-outs", settings.timeouts),
    Check("postgres", stores.postgres),
    Check("vector store", stores.vector_store),
    Check("redis", stores.redis),
    Check("clocks", stores.clocks),
    Check("generator", providers.generator),
    Check("embedder", providers.embedder),
    Check("embedder and index", stores.embedders),
    Check("budgets", webhooks.budgets),
    Check("workers", network.workers),
    Check("models", network.models),
    Check("webhooks", webhooks.webhooks),
    Check("public URL", public_url.public_url),
    Check("identity provider", oidc.identity_provider),
    Check("flower", network.flower),
)
#: Checks that may cost money.
DEEP_CHECKS = (Check("answer", providers.answer),)


class Line(NamedTuple):
    """A line of the report. `state` is ok, beware, wrong, or skipped."""

    state: str
    check: str
    problem: str = ""  #: if it is ok, what there is to say about it
    remedy: str = ""


@click.command()
@click.version_option(get_version(), prog_name="promptwire-doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option("--deep", is_flag=True, help="Also ask the generator for an answer, which may cost money.")
def main(as_json: bool, deep: bool) -> None:
    """Say what is wrong with this installation, and what to do."""
    lines = list(examine(deep=deep))
    for line in lines:
        click.echo(json.dumps(line._asdict()) if as_json else _format(line))
    if any(line.state == Severity.WRONG for line in lines):
        sys.exit(1)


def examine(*, deep: bool = False) -> Iterator[Line]:
    """Run all checks, and yield the lines of the report. `deep` runs DEEP_CHECKS, too."""
    try:
        loaded = load_settings()
    except SettingsError as error:
        for sentence in str(error).splitlines():
            yield Line(Severity.WRONG, "settings", sentence, "See .env.example and docs/settings.md.")
        return
    yield Line("ok", "settings")
    for check in (*CHECKS, *(DEEP_CHECKS if deep else ())):
        yield from _run_check(check, loaded)


def _run_check(check: Check, loaded: Settings) -> Iterator[Line]:
    try:
        findings: list[Finding | Observation] = list(check.run(loaded))
    except NotCheckedError as error:
        yield Line("skipped", check.name, str(error))
        return
    except SettingsError as error:
        findings = [Finding(str(error), "See docs/settings.md.")]
    except Exception as error:  # an unexpected error in one check must not hide the results of the others
        findings = [Finding(f"The check failed ({type(error).__name__}: {error}).", "Check the settings it reads.")]
    for found in findings:
        if isinstance(found, Observation):
            yield Line("ok", check.name, found.text)
        else:
            yield Line(found.severity, check.name, found.problem, found.remedy)
    if not findings:
        yield Line("ok", check.name)


def _format(line: Line) -> str:
    colour = {"ok": "green", "beware": "yellow", "wrong": "red"}.get(line.state)
    text = f"{click.style(f'{line.state:8}', fg=colour)} {line.check:20} {line.problem}".rstrip()
    return text + (f"\n{'':30}→ {line.remedy}" if line.remedy else "")


def cli() -> None:
    """Run the `promptwire-doctor` command."""
    run(main)


if __name__ == "__main__":
    cli()
