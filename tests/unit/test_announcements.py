"""Encoding and decoding announcements."""

import json

import pytest

from shared.messaging.announcements import LOGIN_ENDED, Announcement, from_progress, parse_user_id, to_json

EVENT = '{"type":"prompt.completed","seq":7,"id":3}'
FIELDS = {"seq": 7, "prompt_id": 3, "attempt": 1, "message": EVENT}
MAX = 2**63 - 1
PROGRESS = from_progress({"id": "batch_1", "status": "in_progress"})


@pytest.mark.parametrize(
    "announcement",
    [
        Announcement(7, 3, 1, EVENT, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        Announcement(MAX, MAX, MAX),
        Announcement(7),
        Announcement(None, 3, 1, '{"type":"prompt.delta","id":3,"text":"Tides"}'),
        Announcement(None),
        PROGRESS,
    ],
)
def test_an_announcement_is_decoded_as_it_was_encoded(announcement: Announcement) -> None:
    assert Announcement.decode(announcement.encode()) == announcement


@pytest.mark.parametrize(
    "message", ['{"type":"batch.progress","seq":7}', '{"type":"prompt.delta","id":3}', '{"type":"batch.completed"}']
)
def test_a_message_about_no_prompt_is_the_progress_of_a_batch(message: str) -> None:
    with pytest.raises(ValueError, match="not an event"):
        Announcement.decode(Announcement(None, message=message).encode())


@pytest.mark.parametrize(
    ("announcement", "is_login_ended"),
    [(LOGIN_ENDED, True), (PROGRESS, False), (Announcement(7), False), (Announcement(None, 3), False)],
)
def test_the_end_of_a_login_has_nothing_else(announcement: Announcement, is_login_ended: bool) -> None:
    assert announcement.is_login_ended is is_login_ended


def test_fields_of_a_newer_release_are_ignored() -> None:
    assert Announcement.decode(to_json(FIELDS | {"colour": "blue"})) == Announcement(7, 3, 1, EVENT)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[
            (name, value)
            for name in ("seq", "prompt_id")
            for value in (0, -1, 2**63, 10**30, 1e30, 7.0, True, "7", [7], {})
        ],
        *[("attempt", value) for value in (None, -1, 2**63, 1.0, False, "1")],
        *[
            ("message", value)
            for value in (5, True, {}, [EVENT], "", "Tides", "null", "[]", "{}", '{"type":1}', EVENT[:-1])
        ],
        ("message", EVENT.replace("7", "8")),
        ("message", EVENT.replace("3", "4")),
        ("message", EVENT.replace('"seq":7,', "")),
        ("traceparent", 5),
        ("traceparent", "0" * 100),
    ],
)
def test_an_impossible_announcement_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        Announcement.decode(json.dumps(FIELDS | {field: value}))


@pytest.mark.parametrize("field", FIELDS)
def test_an_announcement_without_a_field_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Announcement.decode(to_json({name: value for name, value in FIELDS.items() if name != field}))


@pytest.mark.parametrize(
    ("text", "user_id"),
    [
        ("1", 1),
        (str(MAX), MAX),
        *[(text, None) for text in ("", "0", "-1", "1.0", str(2**63), "9" * 5_000, "٣", "\ufffd")],
    ],
)
def test_a_users_id_is_a_positive_bigint(text: str, user_id: int | None) -> None:
    assert parse_user_id(text) == user_id
