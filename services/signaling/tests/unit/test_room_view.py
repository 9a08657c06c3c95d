"""The view of a room out of ordered changes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from mrtc.common.v1 import common_pb2 as common
from mrtc.event.v1 import state_pb2
from mrtc_signaling.core.pushes import push_for, snapshot
from mrtc_signaling.core.room_view import (
    Change,
    CodecWantChange,
    CodecWanted,
    Joined,
    Left,
    ParticipantChange,
    PublicationChange,
    Published,
    RecordingChange,
    RecordingUpdated,
    RoomChange,
    RoomClosed,
    RoomView,
    Unpublished,
    Updated,
)


def participant(name: str, **fields: object) -> state_pb2.ParticipantRecord:
    record = state_pb2.ParticipantRecord(participant=common.Participant(id=name, identity=name, is_connected=True))
    for key, value in fields.items():
        setattr(record if hasattr(record, key) else record.participant, key, value)
    return record


def publication(name: str, owner: str, node: str = "n1", **track: object) -> state_pb2.PublicationRecord:
    made = common.Publication(id=name, participant_id=owner, tracks=[common.Track(id=f"t-{name}", **track)])
    return state_pb2.PublicationRecord(publication=made, node_id=node)


def view_of(*changes: Change) -> RoomView:
    view = RoomView()
    view.apply_all(changes)
    return view


def test_join_update_leave() -> None:
    """A life in four changes."""
    view = RoomView()
    assert view.apply(ParticipantChange("a", participant("a"))) == [Joined(participant("a"))]
    assert view.apply(ParticipantChange("a", participant("a"))) == []
    away = participant("a", is_connected=False)
    assert view.apply(ParticipantChange("a", away)) == [Updated(away)]
    left = view.apply(ParticipantChange("a", None, common.LEAVE_REASON_REMOVED))
    assert left == [Left(away, common.LEAVE_REASON_REMOVED)]
    assert view.apply(ParticipantChange("a", None)) == []


def test_reason_written_first_is_told_once() -> None:
    """A record with a leave reason is the leave; its deletion, and late writes before it, are no news."""
    view = view_of(ParticipantChange("a", participant("a")), PublicationChange("p", publication("p", "a")))
    gone = participant("a", leave_reason=common.LEAVE_REASON_ENDED)
    events = view.apply(ParticipantChange("a", gone))
    assert [type(e) for e in events] == [Unpublished, Left]
    assert events[1].reason == common.LEAVE_REASON_ENDED
    assert view.apply(ParticipantChange("a", participant("a"))) == []
    assert view.apply(PublicationChange("p", publication("p", "a"))) == []
    assert view.apply(ParticipantChange("a", None)) == []
    assert view.apply(ParticipantChange("a", participant("a"))) == [Joined(participant("a"))]


def test_publication_before_its_participant_is_held() -> None:
    """The two records of a join may come in either order; people hear of the participant first."""
    view = RoomView()
    early = publication("p", "a")
    assert view.apply(PublicationChange("p", early)) == []
    events = view.apply(ParticipantChange("a", participant("a")))
    assert [type(e) for e in events] == [Joined, Published]
    assert list(view.publications) == ["p"]


def test_what_a_publication_change_means() -> None:
    """Mute is seen; another node is not; the same record again means another transport."""
    view = view_of(ParticipantChange("a", participant("a")), PublicationChange("p", publication("p", "a")))
    muted = view.apply(PublicationChange("p", publication("p", "a", is_muted=True)))[0]
    assert (muted.is_visible_change, muted.is_media_change) == (True, False)
    moved = view.apply(PublicationChange("p", publication("p", "a", "n2", is_muted=True)))[0]
    assert (moved.is_visible_change, moved.is_media_change) == (False, True)
    again = view.apply(PublicationChange("p", publication("p", "a", "n2", is_muted=True)))[0]
    assert (again.is_visible_change, again.is_media_change) == (False, True)


def test_room_recordings_and_wanted_codecs() -> None:
    """The remaining keys."""
    view = RoomView()
    assert view.apply(RoomChange(None)) == []
    assert view.apply(RoomChange(state_pb2.RoomRecord(name="r"))) == []
    assert view.apply(RecordingChange("x", False)) == []
    assert view.apply(RecordingChange("x", True)) == [RecordingUpdated("x", True)]
    assert view.apply(RecordingChange("x", True)) == []
    assert view.apply(CodecWantChange("t", ("h264",))) == [CodecWanted("t", ("h264",))]
    assert view.apply(CodecWantChange("t", ("h264",))) == []
    assert view.apply(CodecWantChange("t", None)) == []
    assert view.apply(RoomChange(None)) == [RoomClosed()]


def test_hidden_ones_are_not_told() -> None:
    """Recorders and hidden participants are in the view and in no push or snapshot."""
    hidden = participant("h", is_hidden=True)
    recorder = participant("r", kind=common.PARTICIPANT_KIND_RECORDER)
    view = RoomView()
    for record in (hidden, recorder):
        for change in (
            ParticipantChange(record.participant.id, record),
            ParticipantChange(record.participant.id, None),
            ParticipantChange(record.participant.id, record),
        ):
            assert [push_for(event, view, "a") for event in view.apply(change)] == [None]
    shown = snapshot(view, room="r", own=participant("a"), own_publications=[], slots=[], last_message_seq=0)
    assert [p.id for p in shown.participants] == ["a"]


def test_a_record_that_expired_reads_as_connection_lost() -> None:
    """A deletion without a reason is told as a lost connection."""
    view = view_of(ParticipantChange("b", participant("b")))
    frame = push_for(view.apply(ParticipantChange("b", None))[0], view, "a")
    assert frame is not None
    assert frame.participant_left.reason == common.LEAVE_REASON_CONNECTION_LOST


def test_media_nodes_by_their_number_of_participants() -> None:
    """Placement is told the busiest first; vods have nodes of another kind."""
    view = view_of(
        ParticipantChange("a", participant("a", node_id="n1")),
        ParticipantChange("b", participant("b", node_id="n2")),
        ParticipantChange("c", participant("c", node_id="n2")),
        ParticipantChange("v", participant("v", node_id="v1", kind=common.PARTICIPANT_KIND_VOD)),
    )
    assert view.media_nodes() == ["n2", "n1"]


_CHANGES = st.lists(
    st.one_of(
        st.builds(
            lambda i, gone, reason: ParticipantChange(i, None if gone else participant(i, leave_reason=reason)),
            st.sampled_from("abc"),
            st.booleans(),
            st.sampled_from([0, 0, 1]),
        ),
        st.builds(
            lambda i, owner, gone, node: PublicationChange(i, None if gone else publication(i, owner, node)),
            st.sampled_from("xyz"),
            st.sampled_from("abc"),
            st.booleans(),
            st.sampled_from(["n1", "n2"]),
        ),
    ),
    max_size=60,
)


@given(_CHANGES)
def test_told_events_add_up_to_the_view(changes: list[Change]) -> None:
    """Whoever follows the events alone ends with what the view shows; nobody joins twice or leaves twice."""
    view, people, published = RoomView(), set(), {}
    for change in changes:
        for event in view.apply(change):
            match event:
                case Joined(record):
                    assert record.participant.id not in people
                    people.add(record.participant.id)
                case Left(record, _):
                    people.remove(record.participant.id)
                case Published(record, _, _):
                    assert record.publication.participant_id in people
                    published[record.publication.id] = record
                case Unpublished(record):
                    del published[record.publication.id]
                case _:
                    pass
    assert people == set(view.participants)
    assert published == view.publications
