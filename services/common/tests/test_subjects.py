"""Keys and subjects are safe for any name and can be taken apart again."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mrtc_common import subjects
from mrtc_common.errors import BadRequestError
from mrtc_common.ids import is_id, new_id
from mrtc_common.subjects import RoomEntryKey, RoomEntryKind

KEY_RE = re.compile(r"[-/_=.a-zA-Z0-9]+")
names = st.text(min_size=1, max_size=30)


@given(names, names)
def test_a_room_key_is_safe_and_reversible(app: str, room: str) -> None:
    key = subjects.room_key(app, room)
    assert re.fullmatch(r"[0-9a-v]+\.[0-9a-v]+", key)
    assert subjects.parse_room_key(key) == (app, room)


@given(names, names, names, names)
def test_rooms_are_equal_only_if_their_names_are(app: str, room: str, app2: str, room2: str) -> None:
    same = subjects.room_key(app, room) == subjects.room_key(app2, room2)
    assert same == ((app, room) == (app2, room2))


@given(names)
def test_entries_are_taken_apart(identity: str) -> None:
    room = subjects.room_key("app", "room")
    cases = {
        subjects.room_record_key(room): RoomEntryKey(room, RoomEntryKind.ROOM),
        subjects.participant_key(room, "pa_1"): RoomEntryKey(room, RoomEntryKind.PARTICIPANT, "pa_1"),
        subjects.identity_key(room, identity): RoomEntryKey(room, RoomEntryKind.IDENTITY, identity),
        subjects.publication_key(room, "pu_1"): RoomEntryKey(room, RoomEntryKind.PUBLICATION, "pu_1"),
        subjects.codec_want_key(room, "tr_1"): RoomEntryKey(room, RoomEntryKind.CODEC_WANT, "tr_1"),
    }
    for key, expected in cases.items():
        assert KEY_RE.fullmatch(key)
        assert subjects.parse_room_entry(key) == expected


@given(st.text())
def test_garbage_is_refused_or_valid(text: str) -> None:
    for parse in (subjects.parse_room_key, subjects.parse_room_entry, subjects.parse_job_key, subjects.decode_name):
        try:
            parse(text)
        except BadRequestError:
            continue


@pytest.mark.parametrize("name", ["", "x" * 129, "\u20ac" * 43])
def test_names_have_limits(name: str) -> None:
    with pytest.raises(BadRequestError):
        subjects.encode_name(name)


@pytest.mark.parametrize("bad", ["", "a.b", "a b", ">", "*", "a/b", "x" * 65, "a\n"])
def test_ids_with_unsafe_characters_are_refused(bad: str) -> None:
    assert not is_id(bad)
    for build in (subjects.session_key, subjects.control_subject, subjects.node_key, subjects.drain_key):
        with pytest.raises(BadRequestError):
            build(bad)


def test_job_keys_are_taken_apart() -> None:
    room = subjects.room_key("app", "room")
    assert subjects.parse_job_key(subjects.recording_key(room, "rec_1")) == (room, "rec_1")
    assert subjects.parse_job_key(subjects.vod_key(room, "vod_1")) == (room, "vod_1")


def test_new_ids_are_ids_and_differ() -> None:
    ids = {new_id("pa") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(is_id(text) and text.startswith("pa_") for text in ids)
