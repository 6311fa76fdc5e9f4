"""The commands for API keys: `promptwire keys --help`."""

from collections.abc import Sequence
from typing import get_args

import click

from .options import Integer, Options, common_options
from .output import local_time, one_line
from .resources import ApiKey, Scope


@click.group()
@common_options
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(get_args(Scope)),
    help="What the key may do; repeat it for several.  [prompts:read, prompts:write]",
)
@click.option("--model", "models", multiple=True, help="A model that it may use; repeat it for several.  [all]")
@click.option("--expires-at", metavar="TIME", help="Until when it is valid, such as 2027-01-31T12:00:00Z.")
@click.option("--rate-limit", metavar="LIMIT", help="How many prompts it may submit, such as 1/second;100/hour.")
@click.option("--monthly-tokens", type=Integer(1), help="How many tokens it may use in a calendar month.")
@common_options
@click.pass_obj
def create(
    options: Options,
    name: str,
    scopes: Sequence[Scope],
    models: Sequence[str],
    expires_at: str | None,
    rate_limit: str | None,
    monthly_tokens: int | None,
) -> None:
    """Create a key with this NAME, and print it: it is not shown again."""
    with options.client() as client:
        created = client.keys.create(
            name,
            scopes=scopes or None,
            models=models or None,
            expires_at=expires_at,
            rate_limit=rate_limit,
            monthly_tokens=monthly_tokens,
        )
    options.output.hint(f"This is key {created['id']}. Store it now: it is not shown again.")
    options.output.result(created, created["key"])


@keys.command("list")
@common_options
@click.pass_obj
def list_keys(options: Options) -> None:
    """Show your keys, newest first."""
    with options.client() as client:
        found = client.keys.list()
    options.output.results(found, ("ID", "PREFIX", "SCOPES", "LAST USED", "EXPIRES", "NAME"), _row)


@keys.command()
@click.argument("key_id", metavar="ID", type=Integer(1))
@common_options
@click.pass_obj
def revoke(options: Options, key_id: int) -> None:
    """Revoke a key for good."""
    with options.client() as client:
        client.keys.revoke(key_id)
    options.output.note(f"Key {key_id} was revoked.")


def _row(key: ApiKey) -> Sequence[str]:
    used, expires = (key[name] for name in ("last_used_at", "expires_at"))
    return (
        str(key["id"]),
        key["prefix"],
        " ".join(key["scopes"]),
        "never" if used is None else local_time(used),
        "never" if expires is None else local_time(expires),
        one_line(key["name"]),
    )
