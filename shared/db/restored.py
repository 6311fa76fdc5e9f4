"""`python -m shared.db.restored`: prepares a database that was restored from a backup for use.

Run it after every restore, of whatever kind: `pg_restore`, a snapshot, point-in-time recovery. Clients, API processes
and Redis may know numbers that were given after the backup. So none of these is given twice: feed numbers, the
versions of users' indexes and ids continue after a gap. Clients that join with an earlier `since` get a `reset`, and
processes that kept running load their indexes again. Redis needs nothing: its messages only wake workers up.

All logins end. Otherwise those that were ended after the backup, by a logout or a new password, would be valid again.
API keys and webhooks stay as the backup has them, because programs could not go on by themselves. An event that was
pending keeps its number, so it has the `webhook-id` by which its receiver knows it.
"""

import click
from sqlalchemy import Connection, Engine, text

from shared.accounts.audit import COMMAND_LINE
from shared.cli_errors import run
from shared.db import migrations
from shared.db.engine import make_engine
from shared.settings import SettingsError, load_settings

#: More than a database has given in the time since any backup. A JavaScript client's integers have room for millions.
GAP = 1_000_000_000

# In the order in which all transactions lock: prompts, users, then the rest.
_STATEMENTS = (
    # As `claims.release` does: the workers of these attempts are gone, and the attempts do not count.
    text("""
        UPDATE prompts SET status = 'queued', due_at = now(), attempt_limit = attempt_limit + 1
        WHERE status = 'processing'
    """),
    text("UPDATE users SET seq = seq + :gap, index_version = index_version + :gap"),
    # A feed that begins after the gap lacks what came before: see `feed.position`.
    text("DELETE FROM feed"),
    # A sequence that had given nothing before the backup has no last value; it may have given numbers since.
    text("SELECT setval(format('%I.%I', schemaname, sequencename), coalesce(last_value, 0) + :gap) FROM pg_sequences"),
    text("UPDATE token_families SET revoked_at = now() WHERE revoked_at IS NULL"),
)
_REVOKE_KEYS = text("""
    WITH revoked AS (UPDATE api_keys SET revoked_at = now() WHERE revoked_at IS NULL RETURNING id, user_id)
    INSERT INTO audit (action, user_id, details, address)
    SELECT 'key.revoked', user_id, jsonb_build_object('key_id', id), :address FROM revoked
""")
_DISABLE_WEBHOOKS = text("""
    UPDATE webhooks SET disabled_at = now(), disabled_reason = 'The service was restored from a backup.'
    WHERE disabled_at IS NULL
""")


class NewerSchemaError(Exception):
    """The database is of a newer release. The message says which one, and what to do."""


def prepare(engine: Engine, *, vector_store: str, revoke_keys: bool = False, disable_webhooks: bool = False) -> None:
    """Migrate a restored database, and give none of its numbers twice. Doing it again is harmless.

    Args:
        revoke_keys: Revoke all API keys, because some may have been revoked after the backup.
        disable_webhooks: Send nothing to any webhook until its user enables it.

    Raises:
        NewerSchemaError: this release is too old for it. Nothing has changed.
        SettingsError: the server lacks an extension that the vector store needs.
    """
    with engine.begin() as connection:
        check_revision(migrations.revision(connection))
    migrations.upgrade(engine, vector_store=vector_store)
    with engine.begin() as connection:
        skip_numbers(connection)
        if revoke_keys:
            connection.execute(_REVOKE_KEYS, {"address": COMMAND_LINE.address})
        if disable_webhooks:
            connection.execute(_DISABLE_WEBHOOKS)


def check_revision(revision: str | None) -> None:
    """Raise NewerSchemaError if this release does not know the schema's revision."""
    if revision is not None and revision > migrations.head():
        raise NewerSchemaError(
            f"It is from a newer release: its schema is {revision}, and this release knows {migrations.head()}. "
            "Restore it with that release, or a later one."
        )


def skip_numbers(connection: Connection) -> None:
    """Give no number twice, end all logins, and queue again what workers held."""
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    for statement in _STATEMENTS:
        connection.execute(statement, {"gap": GAP} if ":gap" in statement.text else {})


@click.command()
@click.option("--revoke-keys", is_flag=True, help="Revoke all API keys: some were revoked after the backup.")
@click.option("--disable-webhooks", is_flag=True, help="Send nothing to webhooks until their users enable them.")
def main(*, revoke_keys: bool, disable_webhooks: bool) -> None:
    """Prepare a restored database for use: migrate it, requeue what workers held, end all logins, reset the feeds."""
    try:
        settings = load_settings()
        engine = make_engine(settings, application_name="promptwire-restored")
        prepare(
            engine,
            vector_store=settings.vector_store,
            revoke_keys=revoke_keys,
            disable_webhooks=disable_webhooks,
        )
    except (NewerSchemaError, SettingsError) as error:
        raise click.ClickException(str(error)) from error
    click.echo("The restored database can be used. All users log in again.")


if __name__ == "__main__":
    run(main)
