"""Usernames in any case, and passwords however they are typed: registration, login, rooms and the command line."""

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result
from flask import Flask

from api.users_cli import main as users_cli
from shared.accounts import login_blocks, users
from shared.db.engine import Sessions
from shared.db.models import User
from shared.settings import Settings
from tests.support.client import PASSWORD, assert_problem, serving
from tests.support.processes import RemoteUser
from tests.support.servers import environment_of

COMPOSED, DECOMPOSED = "caf\u00e9-caf\u00e9", "cafe\u0301-cafe\u0301"


@pytest.fixture
def cli(settings: Settings) -> Callable[..., Result]:
    """Run `promptwire-users` with these arguments."""
    environment = environment_of(settings) | {"NEW_PASSWORD": PASSWORD}
    return lambda *arguments: CliRunner().invoke(users_cli, arguments, env=environment)


def register(app: Flask, username: str, password: str = PASSWORD):
    return app.test_client().post("/auth/register/", json={"username": username, "password": password})


def log_in(app: Flask, username: str, password: str = PASSWORD):
    return app.test_client().post("/login/", json={"username": username, "password": password})


class TestUsernames:
    def test_the_stored_name_keeps_its_case(self, app: Flask) -> None:
        assert register(app, "\uff21lice").json["username"] == "Alice"

    @pytest.mark.parametrize("taken", ["Alice", "alice", "ALICE", "\uff41lice"])
    def test_a_name_that_is_taken_in_another_case_is_409(self, app: Flask, taken: str) -> None:
        register(app, "Alice")
        assert_problem(register(app, taken), 409)

    @pytest.mark.parametrize("username", [".", ".."])
    def test_a_name_that_means_a_folder_is_400(self, app: Flask, username: str) -> None:
        problem = assert_problem(register(app, username), 400)
        assert problem["errors"][0]["message"].endswith('and are not "." or "..".')

    @pytest.mark.parametrize("typed", ["Alice", "alice", "ALICE", "\uff41lice"])
    def test_a_login_takes_the_name_in_any_case(self, app: Flask, typed: str) -> None:
        register(app, "Alice")
        assert log_in(app, typed).status_code == 200

    def test_failed_logins_of_a_name_in_different_cases_count_together(self, app: Flask) -> None:
        register(app, "Alice")
        typed = ["alice", "ALICE", "\uff41lice", "Alice", "aLICE"] * 2
        assert [log_in(app, name, "a wrong one").status_code for name in typed] == [401] * 10
        assert log_in(app, "alicE", "a wrong one").status_code == 429

    def test_the_places_of_earlier_logins_are_known_in_any_case(self, app: Flask, sessions: Sessions) -> None:
        register(app, "Alice")
        log_in(app, "Alice")
        with sessions() as session:
            assert login_blocks.is_known(session, "aLICE", "127.0.0.0/24")
            assert not login_blocks.is_known(session, "bob", "127.0.0.0/24")

    @pytest.mark.parametrize("typed", ["alice", "ALICE"])
    def test_a_room_is_joined_by_its_name_in_any_case(self, app: Flask, typed: str) -> None:
        register(app, "Alice")
        with serving(app) as url:
            alice = RemoteUser(url, "Alice", is_new=False)
            with alice.join(path=f"/ws/prompts/{typed}/") as room:
                assert room.receive()["message"] == "Connected to WebSocket room 'Alice'."

    def test_the_command_line_finds_a_name_in_any_case(self, app: Flask, cli: Callable[..., Result]) -> None:
        assert cli("create", "\uff22ob").output == "Created Bob (id 1).\n"
        assert "is taken" in str(cli("create", "BOB").exception)
        assert cli("create", "..").output.startswith("Error: Usernames use letters")
        assert cli("set-password", "bob").exit_code == 0
        assert log_in(app, "bob").status_code == 200


class TestUsersWhoShareAName:
    """Users of earlier releases, whose names differ only in case."""

    @pytest.fixture(autouse=True)
    def bobs(self, app: Flask, sessions: Sessions) -> None:
        with sessions.begin() as session:
            users.create(session, "bob", users.hash_password("first password"))
            session.add(User(username="Bob", password_hash=users.hash_password(PASSWORD), shares_name=True))

    @pytest.mark.parametrize(
        ("username", "password", "status"),
        [
            ("bob", "first password", 200),
            ("Bob", PASSWORD, 200),
            ("BOB", "first password", 200),  # the first one has the name
            ("BOB", PASSWORD, 401),
            ("bob", PASSWORD, 401),
            ("Bob", "first password", 401),
        ],
    )
    def test_each_logs_in_by_the_exact_name(self, app: Flask, username: str, password: str, status: int) -> None:
        assert log_in(app, username, password).status_code == status

    def test_another_user_cannot_register_a_third_case_of_a_shared_name(self, app: Flask) -> None:
        assert_problem(register(app, "BOB"), 409)

    @pytest.mark.parametrize(("room", "is_own"), [("Bob", True), ("bob", False), ("BOB", False)])
    def test_neither_joins_the_room_of_the_other(self, app: Flask, room: str, *, is_own: bool) -> None:
        with (
            serving(app) as url,
            RemoteUser(url, "Bob", is_new=False).join(path=f"/ws/prompts/{room}/") as socket,
        ):
            assert ("message" if is_own else "error") in socket.receive()


class TestPasswords:
    def test_without_a_terminal_the_command_line_says_where_it_takes_the_password_from(
        self, settings: Settings
    ) -> None:
        result = CliRunner().invoke(users_cli, ["create", "bob"], env=environment_of(settings) | {"NEW_PASSWORD": None})
        assert (result.exit_code, "Give a password in NEW_PASSWORD" in result.output) == (2, True)

    def test_a_password_matches_however_it_is_composed(self, app: Flask) -> None:
        register(app, "alice", DECOMPOSED)
        assert [log_in(app, "alice", typed).status_code for typed in (COMPOSED, DECOMPOSED)] == [200, 200]

    def test_a_password_with_control_characters_is_400_with_a_sentence(self, app: Flask) -> None:
        problem = assert_problem(register(app, "alice", "tab\tin here"), 400)
        assert problem["errors"][0] == {
            "field": "password",
            "message": "Passwords may not contain control characters, invisible characters or unassigned ones.",
        }

    @pytest.mark.parametrize("old", [DECOMPOSED, "tab\tin here", "zero\u200dwidth"])
    def test_a_password_of_an_earlier_release_keeps_working(self, app: Flask, sessions: Sessions, old: str) -> None:
        with sessions.begin() as session:
            users.create(session, "carol", users.hash_password(old))
        assert [log_in(app, "carol", old).status_code for _ in range(2)] == [200, 200]
        assert log_in(app, "carol", "a wrong one").status_code == 401

    def test_a_login_normalises_the_password_of_an_earlier_release(self, app: Flask, sessions: Sessions) -> None:
        with sessions.begin() as session:
            users.create(session, "carol", users.hash_password(DECOMPOSED))
        assert log_in(app, "carol", COMPOSED).status_code == 401
        assert log_in(app, "carol", DECOMPOSED).status_code == 200
        assert log_in(app, "carol", COMPOSED).status_code == 200

    @pytest.mark.parametrize(("typed", "count"), [(PASSWORD, 1), (DECOMPOSED, 2), ("tab\tin here", 1)])
    def test_as_many_hashes_are_verified_for_an_unknown_user(
        self, app: Flask, monkeypatch: pytest.MonkeyPatch, typed: str, count: int
    ) -> None:
        register(app, "alice")
        verified: list[str] = []
        monkeypatch.setattr(users, "_verify", lambda _, form: verified.append(form) is not None)
        for username in ("alice", "nobody"):
            verified.clear()
            log_in(app, username, typed)
            assert len(verified) == count

    def test_a_password_whose_hash_changes_during_a_login_is_checked_again(
        self, app: Flask, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As when two logins at the same time normalise it."""
        register(app, "carol")
        verify, hashes = users.matching_form, [users.hash_password(PASSWORD)]

        def verify_and_change(password_hash: str, password: str) -> str | None:
            if hashes:
                with sessions.begin() as session:
                    users.find_existing(session, "carol").password_hash = hashes.pop()
            return verify(password_hash, password)

        monkeypatch.setattr(users, "matching_form", verify_and_change)
        assert log_in(app, "carol").status_code == 200
