"""The user that `make up` creates for trying things out."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local.data_folder import DataFolder
from infra.local.database import DEVELOPER, prepare_database
from shared.accounts import users
from shared.db.engine import Sessions
from shared.settings import Settings


@pytest.fixture
def prepare(settings: Settings, tmp_path: Path) -> Callable[..., None]:
    """Prepares the test's database as `make up` does, in this profile."""
    folder = DataFolder(tmp_path)
    return lambda **changes: prepare_database(settings.model_copy(update=changes), folder)


def may_log_in(sessions: Sessions, folder: Path) -> bool:
    login = json.loads((folder / f"{DEVELOPER}.json").read_text())
    with sessions() as session:
        user = users.find(session, login["username"])
        return user is not None and users.verify_password(user.password_hash, login["password"])


def test_the_first_user_may_log_in_with_the_file(
    prepare: Callable[..., None], sessions: Sessions, tmp_path: Path
) -> None:
    prepare()
    assert may_log_in(sessions, tmp_path)


def test_production_gets_no_first_user(prepare: Callable[..., None], sessions: Sessions, tmp_path: Path) -> None:
    prepare(app_env="prod")
    assert list(tmp_path.glob(f"**/{DEVELOPER}*")) == []
    with sessions() as session:
        assert users.find(session, DEVELOPER) is None


def test_the_first_user_gets_a_new_password_if_the_old_one_is_lost(
    prepare: Callable[..., None], sessions: Sessions, tmp_path: Path
) -> None:
    prepare()
    (tmp_path / "secrets" / DEVELOPER).write_text("")
    prepare()
    assert may_log_in(sessions, tmp_path)


def test_a_first_user_of_another_folder_keeps_its_password(
    prepare: Callable[..., None], sessions: Sessions, tmp_path: Path
) -> None:
    """Somebody else's, in a database that several use, or one of a backup. `make up` must not show another password."""
    with sessions.begin() as session:
        users.create(session, DEVELOPER, users.hash_password("her own password"))
    prepare()
    with sessions() as session:
        assert users.verify_password(users.find(session, DEVELOPER).password_hash, "her own password")
    assert list(tmp_path.glob(f"**/{DEVELOPER}*")) == []
