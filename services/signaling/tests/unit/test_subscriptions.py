"""Which tracks a participant receives."""

from __future__ import annotations

from mrtc.common.v1 import common_pb2 as common
from mrtc.event.v1 import state_pb2
from mrtc.media.v1 import media_service_pb2 as media
from mrtc_signaling.core.codecs import askable_codecs, unmet_want
from mrtc_signaling.core.room_view import CodecWantChange, ParticipantChange, PublicationChange, RoomView
from mrtc_signaling.core.slots import SlotTable
from mrtc_signaling.core.subscriptions import SubscriptionPolicy, first_playable, wanted_subscriptions

VIDEO, AUDIO = common.TRACK_KIND_VIDEO, common.TRACK_KIND_AUDIO


def room(*publications: tuple[str, str, list[common.Track]]) -> RoomView:
    view = RoomView()
    for name, owner, tracks in publications:
        person = common.Participant(id=owner, identity=f"id-{owner}")
        view.apply(ParticipantChange(owner, state_pb2.ParticipantRecord(participant=person)))
        made = common.Publication(id=name, participant_id=owner, tracks=tracks)
        record = state_pb2.PublicationRecord(publication=made, node_id=f"node-{owner}")
        for track in tracks:
            record.offered_codecs[track.id].codecs.extend(["vp8", "h264", "vp9"])
        view.apply(PublicationChange(name, record))
    return view


def track(name: str, kind: int = VIDEO, **fields: object) -> common.Track:
    return common.Track(id=name, kind=kind, **fields)


VIEW = room(
    ("p1", "a", [track("a1", AUDIO)]),
    ("p2", "b", [track("b1"), track("b2", codec="h264", alternative_of="b1")]),
    ("p3", "me", [track("m1")]),
)


def ids(policy: SubscriptionPolicy, view: RoomView = VIEW) -> list[str]:
    return [s.track_id for s in wanted_subscriptions(view, "me", policy)]


def test_automatic_is_everything_of_others() -> None:
    """Alternatives ride on their track; own tracks are left out; the origin node is named."""
    wanted = wanted_subscriptions(VIEW, "me", SubscriptionPolicy())
    assert [(s.track_id, s.origin_node_id, list(s.alternative_track_ids), s.priority) for s in wanted] == [
        ("a1", "node-a", [], 128),
        ("b1", "node-b", ["b2"], 128),
    ]


def test_a_track_that_moved_is_wanted_by_its_new_name_and_names_the_former() -> None:
    """Media nodes have one name per transport of the publisher; clients always the same."""
    view = room(("p2", "b", [track("b1"), track("b2", codec="h264", alternative_of="b1")]))
    record = state_pb2.PublicationRecord()
    record.CopyFrom(view.publications["p2"])
    record.generation = 2
    view.apply(PublicationChange("p2", record))
    [wanted] = wanted_subscriptions(view, "me", SubscriptionPolicy())
    assert (wanted.track_id, list(wanted.alternative_track_ids)) == ("b1-2", ["b2-2"])
    assert list(wanted.former_track_ids) == ["b1-1", "b2-1"]
    table = SlotTable()
    table.update([media.Slot(mid="0", kind=VIDEO, track_id="b1-2")])
    assert [(s.mid, s.track_id) for s in table.mappings()] == [("0", "b1")]


def test_a_track_that_is_away_for_a_moment_keeps_a_slot() -> None:
    """Only one that the client had, in a slot of its kind that is free; the node's word is the last."""

    def slots(first: str, second: str, sound: str = "") -> list[media.Slot]:
        kinds = (("0", VIDEO, first), ("1", VIDEO, second), ("2", AUDIO, sound))
        return [media.Slot(mid=mid, kind=kind, track_id=name) for mid, kind, name in kinds]

    table = SlotTable()
    table.update(slots("a", "b"), "t1", 1)
    assert not table.update(slots("a", ""), "t1", 2, ["b-1", "new"])
    # Its place went to somebody else.
    table.update(slots("", "c"), "t1", 3, ["a-1", "b-1"])
    assert table.current == (("0", "a"), ("1", "c"), ("2", ""))
    # Another transport: any free slot will do.
    table.clear()
    table.update(slots("c", ""), "t2", 1, ["a-1"])
    assert table.current == (("0", "c"), ("1", "a"), ("2", ""))
    # It is not wanted any more.
    table.update(slots("c", ""), "t2", 2)
    table.update(slots("c", ""), "t2", 3, ["a-1"])
    assert table.current == (("0", "c"), ("1", ""), ("2", ""))


def test_declined_wished_manual_and_forbidden() -> None:
    """Every policy."""
    policy = SubscriptionPolicy()
    policy.decline(["b1"])
    assert ids(policy) == ["a1"]
    policy.wish([state_pb2.SubscriptionWish(track_id="b1", max_height=90, is_paused=True)])
    assert ids(policy) == ["a1", "b1"]
    assert wanted_subscriptions(VIEW, "me", policy)[1].max_height == 90
    manual = SubscriptionPolicy(is_manual=True)
    assert ids(manual) == []
    manual.wish([state_pb2.SubscriptionWish(track_id="a1")])
    assert ids(manual) == ["a1"]
    assert ids(SubscriptionPolicy(can_subscribe=False)) == []


def test_tracks_that_are_gone_are_forgotten() -> None:
    """A long session does not grow."""
    policy = SubscriptionPolicy(declined={"x", "a1"})
    policy.wish([state_pb2.SubscriptionWish(track_id="y")])
    policy.forget_tracks_but({"a1"})
    assert (policy.wishes, policy.declined) == ({}, {"a1"})


def test_first_playable_prefers_a_picture() -> None:
    """A player gets the oldest publication with a picture, or the named participant's."""
    assert first_playable(VIEW, None).publication.id == "p2"
    assert first_playable(VIEW, "id-a").publication.id == "p1"
    assert first_playable(VIEW, "nobody") is None
    assert first_playable(RoomView(), None) is None


def test_codecs_that_can_be_asked_for() -> None:
    """In the publisher's order, of those that the receiver knows and that are not there yet."""
    record = VIEW.publications["p2"]
    assert askable_codecs(record, "b1", ["vp9", "h264", "av1"]) == ("vp9",)
    assert askable_codecs(record, "b1", ["av1"]) == ()
    assert askable_codecs(record, "unknown", ["vp9"]) == ()


def test_want_is_met_by_any_of_the_codecs() -> None:
    """The publisher is asked until one of the wanted codecs is there."""
    view = room(("p1", "a", [track("t", codec="vp8")]))
    assert unmet_want(view, "t") == ()
    view.apply(CodecWantChange("t", ("h264", "vp9")))
    assert unmet_want(view, "t") == ("h264", "vp9")
    record = view.publications["p1"]
    record.publication.tracks.append(track("t2", codec="vp9", alternative_of="t"))
    assert unmet_want(view, "t") == ()


def test_slot_table_tells_changes_and_needs_once() -> None:
    """The same map is no change, the same need no news; a new offer makes it news again."""
    table = SlotTable()
    slots = [media.Slot(mid="1", kind=VIDEO, track_id="b1"), media.Slot(mid="2", kind=VIDEO)]
    assert table.update(slots)
    assert not table.update(slots)
    assert [(m.mid, m.track_id) for m in table.mappings()] == [("1", "b1"), ("2", "")]
    wanted = wanted_subscriptions(VIEW, "me", SubscriptionPolicy())
    need = table.need(wanted, ["a1", "b1"])
    assert (need.audio, need.video) == (1, 1)
    assert table.need(wanted, ["b1", "a1"]) is None
    table.renegotiated()
    assert table.need(wanted, ["a1"]).audio == 1
    assert table.need(wanted, []) is None
