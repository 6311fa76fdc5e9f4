"""The tables of a local stack, and a user for trying things out."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from infra.local.data_folder import DataFolder
from infra.local.errors import CannotStartError
from shared.accounts import users
from shared.db import migrations
from shared.db.engine import Sessions, make_engine, make_sessions
from shared.settings import Settings, SettingsError

#: The user, whose login is in a file in the data folder. In production there is none.
DEVELOPER = "alice"


def prepare_database(settings: Settings, folder: DataFolder) -> None:
    """Migrate the database, and create the user.

    Raises:
        CannotStartError: the database cannot be used.
    """
    with opened(settings, "promptwire-up") as engine:
        migrations.upgrade(engine, vector_store=settings.vector_store)
        if settings.app_env != "prod":
            _add_developer(make_sessions(engine), folder)


@contextmanager
def opened(settings: Settings, application_name: str) -> Iterator[Engine]:
    """An engine. Raises CannotStartError if what the block does with the database fails."""
    engine = make_engine(settings, application_name=application_name)
    try:
        yield engine
    except DBAPIError as error:
        raise CannotStartError(f"The database cannot be used: {str(error.orig).strip()}") from error
    except SettingsError as error:
        raise CannotStartError(str(error)) from error
    finally:
        engine.dispose()


def _add_developer(sessions: Sessions, folder: DataFolder) -> None:
    """Create the user with a password of this folder, which has none if the database brings the user along."""
    is_lost = folder.has_lost_secret(DEVELOPER)
    with sessions.begin() as session:
        exists = users.find(session, DEVELOPER) is not None
        if exists and not is_lost and not folder.has_secret(DEVELOPER):
            return
        password = folder.secret(DEVELOPER)
        if not exists:
            users.create(session, DEVELOPER, users.hash_password(password))
        elif is_lost:
            users.set_password(session, DEVELOPER, users.hash_password(password))
    folder.write_login(DEVELOPER, DEVELOPER, password)
