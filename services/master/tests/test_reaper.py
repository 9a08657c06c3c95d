"""What is removed, and when not."""

from mrtc.common.v1.common_pb2 import Participant, Publication, Track
from mrtc.event.v1.state_pb2 import (
    CodecList,
    IdentityRecord,
    ParticipantRecord,
    PublicationRecord,
    RoomRecord,
    SessionRecord,
)
from mrtc_common import subjects
from mrtc_master.core.node_losses import MAX_NOTICES, REPEAT_S, NodeLosses
from mrtc_master.core.reaper import (
    CloseRoom,
    ReapCodecWant,
    ReapDuplicate,
    Reaper,
    ReapIdentity,
    ReapParticipant,
    ReapPublication,
)
from mrtc_master.core.rooms_view import RoomsView

ROOM = subjects.room_key("app", "room")


def _view(*, with_session: bool = True) -> RoomsView:
    view = RoomsView()
    participant = ParticipantRecord(participant=Participant(id="p1", identity="ann"), session_id="s1")
    publication = PublicationRecord(publication=Publication(id="pub1", participant_id="p1", tracks=[Track(id="t1")]))
    view.apply_room_change(subjects.room_record_key(ROOM), RoomRecord(name="room"), 1, 0.0)
    view.apply_room_change(subjects.identity_key(ROOM, "ann"), IdentityRecord(participant_id="p1"), 2, 0.0)
    view.apply_room_change(subjects.participant_key(ROOM, "p1"), participant, 3, 0.0)
    view.apply_room_change(subjects.publication_key(ROOM, "pub1"), publication, 4, 0.0)
    view.apply_room_change(subjects.codec_want_key(ROOM, "t1"), CodecList(codecs=["vp8"]), 5, 0.0)
    if with_session:
        view.apply_session_change("s1", SessionRecord(session_id="s1", node_id="n1"))
    return view


def _reaper() -> Reaper:
    return Reaper(orphan_grace_s=2, claim_grace_s=30, empty_timeout_s=30)


def test_nothing_is_due_in_a_healthy_room() -> None:
    reaper, view = _reaper(), _view()
    assert [reaper.due(view, t) for t in (0.0, 10.0, 1000.0)] == [[], [], []]


def test_a_participant_without_session_is_due_after_the_grace() -> None:
    reaper, view = _reaper(), _view(with_session=False)
    assert reaper.due(view, 10.0) == []
    assert reaper.due(view, 11.9) == []
    assert reaper.due(view, 12.0) == [ReapParticipant(ROOM, "p1", "s1")]


def test_a_session_that_comes_back_begins_a_new_grace() -> None:
    reaper, view = _reaper(), _view(with_session=False)
    reaper.due(view, 10.0)
    view.apply_session_change("s1", SessionRecord(session_id="s1"))
    reaper.due(view, 11.0)
    view.apply_session_change("s1", None)
    assert reaper.due(view, 12.5) == []
    assert reaper.due(view, 14.5) != []


def test_nobody_is_removed_while_held() -> None:
    reaper, view = _reaper(), _view(with_session=False)
    reaper.hold_until(100.0)
    assert reaper.due(view, 10.0) == []
    assert reaper.due(view, 99.0) == []
    assert reaper.due(view, 100.0) != []


def test_what_a_participant_left_behind_is_due() -> None:
    reaper, view = _reaper(), _view()
    view.apply_room_change(subjects.participant_key(ROOM, "p1"), None, 6, 0.0)
    reaper.due(view, 0.0)
    assert reaper.due(view, 2.0) == [ReapPublication(ROOM, "pub1")]
    # Longer, since an identity is claimed before the media node is asked for a transport.
    assert ReapIdentity(ROOM, "ann", "p1") not in reaper.due(view, 29.0)
    assert ReapIdentity(ROOM, "ann", "p1") in reaper.due(view, 30.0)
    view.apply_room_change(subjects.publication_key(ROOM, "pub1"), None, 7, 0.0)
    reaper.due(view, 31.0)
    assert ReapCodecWant(ROOM, "t1") in reaper.due(view, 33.0)


def test_who_lost_its_identity_to_somebody_who_did_not_see_it_is_due() -> None:
    """Both were joining at once: the newest has the identity, the other one goes."""
    reaper, view = _reaper(), _view()
    second = ParticipantRecord(participant=Participant(id="p2", identity="ann"), session_id="s2")
    view.apply_session_change("s2", SessionRecord(session_id="s2"))
    view.apply_room_change(subjects.identity_key(ROOM, "ann"), IdentityRecord(participant_id="p2"), 6, 0.0)
    reaper.due(view, 0.0)
    assert reaper.due(view, 29.0) == [], "the newer one is not there yet"
    assert ReapDuplicate(ROOM, "p1", "ann", has_successor=False) in reaper.due(view, 30.0), "and never came"
    view.apply_room_change(subjects.participant_key(ROOM, "p2"), second, 7, 30.0)
    reaper.due(view, 30.0)
    assert reaper.due(view, 32.0) == [ReapDuplicate(ROOM, "p1", "ann", has_successor=True)]


def test_an_empty_room_is_closed_after_its_own_timeout_or_the_default() -> None:
    for timeout_ms, seconds in ((0, 30.0), (5000, 5.0)):
        reaper, view = _reaper(), RoomsView()
        record = RoomRecord(name="room", empty_timeout_ms=timeout_ms)
        view.apply_room_change(subjects.room_record_key(ROOM), record, 9, 100.0)
        assert reaper.due(view, 100.0 + seconds - 0.1) == []
        assert reaper.due(view, 100.0 + seconds) == [CloseRoom(ROOM, 9)]


def test_a_room_is_empty_from_the_moment_the_last_one_left() -> None:
    reaper, view = _reaper(), _view()
    view.apply_room_change(subjects.participant_key(ROOM, "p1"), None, 6, 500.0)
    assert not any(isinstance(reap, CloseRoom) for reap in reaper.due(view, 529.0))
    assert any(isinstance(reap, CloseRoom) for reap in reaper.due(view, 530.0))


def test_a_room_without_keys_is_forgotten() -> None:
    view = RoomsView()
    view.apply_room_change(subjects.room_record_key(ROOM), RoomRecord(), 1, 0.0)
    view.apply_room_change(subjects.room_record_key(ROOM), None, 2, 0.0)
    assert view.rooms == {}


def test_a_session_is_told_of_its_dead_node_until_it_has_another() -> None:
    losses = NodeLosses()
    session = SessionRecord(session_id="s1", node_id="n1")
    assert losses.due([session], {"n1"}, 0.0) == []
    assert losses.due([session], set(), 1.0) == [session]
    assert losses.due([session], set(), 1.5) == []
    assert losses.due([session], set(), 1.0 + REPEAT_S) == [session]
    session.node_id = "n2"
    assert losses.due([session], {"n2"}, 9.0) == []


def test_a_session_that_never_answers_is_not_told_for_ever() -> None:
    losses, session = NodeLosses(), SessionRecord(session_id="s1", node_id="n1")
    told = sum(len(losses.due([session], set(), float(t * 2))) for t in range(200))
    assert told == MAX_NOTICES
