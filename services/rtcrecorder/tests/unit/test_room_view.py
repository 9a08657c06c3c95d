"""What a recording knows of its room."""

from __future__ import annotations

import pytest
from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc_common import subjects
from mrtc_rtcrecorder.core.frames import Kind
from mrtc_rtcrecorder.core.room_view import RoomView, Selection

KEY = subjects.room_key("app", "room")
ALL = Selection()


def join(view: RoomView, name: str, at_ms: int = 0, *, hidden: bool = False, recorder: bool = False) -> None:
    kind = common_pb2.PARTICIPANT_KIND_RECORDER if recorder else common_pb2.PARTICIPANT_KIND_STANDARD
    participant = common_pb2.Participant(id=f"pa_{name}", identity=name, joined_at_ms=at_ms, kind=kind)
    record = state_pb2.ParticipantRecord(participant=participant, is_hidden=hidden)
    view.apply(subjects.participant_key(KEY, participant.id), record)


def publish(view: RoomView, name: str, *tracks: common_pb2.Track, tag: str = "", node: str = "node") -> str:
    publication = common_pb2.Publication(
        id=f"pub_{name}_{tracks[0].id}", participant_id=f"pa_{name}", tag=tag, tracks=tracks
    )
    key = subjects.publication_key(KEY, publication.id)
    view.apply(key, state_pb2.PublicationRecord(publication=publication, node_id=node))
    return key


def camera(track_id: str, **fields: object) -> common_pb2.Track:
    return common_pb2.Track(id=track_id, kind=common_pb2.TRACK_KIND_VIDEO, codec="vp8", **fields)  # type: ignore[arg-type]


@pytest.fixture
def view() -> RoomView:
    one = RoomView()
    one.apply(subjects.room_record_key(KEY), state_pb2.RoomRecord(name="room"))
    return one


def test_tracks_come_in_the_order_of_joining(view: RoomView) -> None:
    """So that the grid does not depend on ids."""
    for name, at_ms in (("zoe", 1), ("adam", 2), ("mia", 0)):
        join(view, name, at_ms)
        publish(view, name, camera(f"tr_{name}"))
    assert list(view.wanted_tracks(ALL)) == ["tr_mia", "tr_zoe", "tr_adam"]


def test_a_track_says_where_it_is_and_whose(view: RoomView) -> None:
    """All that a follower needs."""
    join(view, "alice")
    publish(view, "alice", camera("tr", is_muted=True), node="mcu-1")
    track = view.wanted_tracks(ALL)["tr"]
    assert (track.kind, track.node_id, track.codec, track.is_muted) == (Kind.VIDEO, "mcu-1", "vp8", True)
    assert (track.identity, track.publication_id) == ("alice", "pub_alice_tr")


def test_an_alternative_is_not_recorded_twice(view: RoomView) -> None:
    """It is the same picture."""
    join(view, "alice")
    publish(view, "alice", camera("one"), camera("two", alternative_of="one"))
    assert list(view.wanted_tracks(ALL)) == ["one"]


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        (ALL, {"a1", "a2", "b1"}),
        (Selection(frozenset({"bob"})), {"b1"}),
        (Selection(tag_prefix="cam"), {"a1", "b1"}),
        (Selection(frozenset({"alice"}), "cam"), {"a1"}),
        (Selection(frozenset({"nobody"})), set()),
    ],
)
def test_a_selection_takes_identities_and_tags(view: RoomView, selection: Selection, wanted: set[str]) -> None:
    """Spec row O17."""
    join(view, "alice")
    join(view, "bob")
    publish(view, "alice", camera("a1"), tag="cam/1")
    publish(view, "alice", camera("a2"), tag="screen")
    publish(view, "bob", camera("b1"), tag="cam/2")
    assert set(view.wanted_tracks(selection)) == wanted


def test_what_is_gone_is_not_wanted(view: RoomView) -> None:
    """Publications, participants, and publications whose participant is not known (yet)."""
    join(view, "alice")
    key = publish(view, "alice", camera("tr"))
    publish(view, "stranger", camera("other"))
    assert set(view.wanted_tracks(ALL)) == {"tr"}
    view.apply(key, None)
    assert not view.wanted_tracks(ALL)


def test_a_publication_without_node_has_no_media_yet(view: RoomView) -> None:
    """Its record comes again with one."""
    join(view, "alice")
    publish(view, "alice", camera("tr"), node="")
    assert not view.wanted_tracks(ALL)


def test_recorders_and_hidden_watchers_do_not_keep_a_room_open(view: RoomView) -> None:
    """A room of them alone is empty."""
    join(view, "rec", recorder=True)
    join(view, "watcher", hidden=True)
    assert view.is_empty
    join(view, "alice")
    assert not view.is_empty


def test_a_room_closes_with_its_record(view: RoomView) -> None:
    """Whatever else is still there."""
    assert view.is_open
    view.apply(subjects.room_record_key(KEY), None)
    assert not view.is_open


def test_other_records_are_no_matter(view: RoomView) -> None:
    """Identities and codec wishes."""
    view.apply(subjects.identity_key(KEY, "alice"), state_pb2.IdentityRecord(participant_id="pa"))
    view.apply(subjects.codec_want_key(KEY, "tr"), state_pb2.CodecList(codecs=["vp8"]))
    assert view.is_empty
