"""Counting the slots that each user holds."""

import pytest

from api.intake.user_slots import UserSlots
from shared.errors import UserLimitError

ALICE, BOB = 1, 2


@pytest.fixture
def slots() -> UserSlots:
    return UserSlots(2, "USER_LIMIT", "A user may have {limit} of them.")


def test_a_user_may_hold_as_many_slots_as_the_limit_says(slots: UserSlots) -> None:
    with (
        slots.hold(ALICE),
        slots.hold(ALICE),
        pytest.raises(UserLimitError, match=r"A user may have 2 of them\. \(USER_LIMIT\)"),
    ):
        slots.acquire(ALICE)


def test_a_refused_slot_is_not_counted(slots: UserSlots) -> None:
    with slots.hold(ALICE), slots.hold(ALICE):
        for _ in range(3):
            with pytest.raises(UserLimitError):
                slots.acquire(ALICE)
    with slots.hold(ALICE), slots.hold(ALICE):
        pass


def test_a_slot_is_released_when_its_block_fails(slots: UserSlots) -> None:
    for _ in range(3):
        with pytest.raises(KeyError), slots.hold(ALICE):
            raise KeyError
    with slots.hold(ALICE), slots.hold(ALICE):
        pass


def test_users_do_not_share_slots(slots: UserSlots) -> None:
    with slots.hold(ALICE), slots.hold(ALICE), slots.hold(BOB), slots.hold(BOB):
        pass


def test_nothing_is_kept_of_users_that_hold_no_slot(slots: UserSlots) -> None:
    for user_id in range(10):
        with slots.hold(user_id):
            pass
    assert slots._held == {}
