"""Pushes of a connection; replies kept; rates; speakers."""

from __future__ import annotations

import pytest
from mrtc.common.v1 import common_pb2 as common
from mrtc.event.v1 import state_pb2
from mrtc.signaling.v1 import client_pb2 as pb
from mrtc_signaling.core.outbox import Outbox, SlowClientError
from mrtc_signaling.core.rate_limit import TokenBucket
from mrtc_signaling.core.replies import MAX_KEPT, ReplyCache
from mrtc_signaling.core.speakers import SpeakerMerger

Frame = pb.ServerFrame


def slots(track: str) -> Frame:
    return Frame(slots_changed=pb.SlotsChanged(slots=[pb.SlotMapping(mid="1", track_id=track)]))


def joined(name: str) -> Frame:
    return Frame(participant_joined=pb.ParticipantJoined(participant=common.Participant(id=name)))


def layers(track: str, *rids: str) -> Frame:
    return Frame(layers_wanted=pb.LayersWanted(track_id=track, rids=rids))


def drain(box: Outbox) -> list[Frame]:
    frames = []
    while (frame := box.pop()) is not None:
        frames.append(frame)
    return frames


def test_pushes_are_numbered_without_gaps_and_replies_are_not() -> None:
    """Numbers are given when a frame is sent, so replaced ones leave no gap."""
    box = Outbox()
    box.push(joined("a"))
    box.push(slots("1"))
    box.reply(Frame(request_id=3, done=pb.Done()))
    box.push(slots("2"))
    box.push(Frame(pong=pb.Pong()))
    frames = drain(box)
    assert [(f.WhichOneof("body"), f.push_seq) for f in frames] == [
        ("participant_joined", 1),
        ("done", 0),
        ("slots_changed", 2),
        ("pong", 0),
    ]
    assert frames[2].slots_changed.slots[0].track_id == "2"


def test_layers_are_replaced_per_track() -> None:
    """The newest of each track stays."""
    box = Outbox()
    for frame in (layers("a", "q"), layers("b", "q"), layers("a", "q", "h")):
        box.push(frame)
    assert [list(f.layers_wanted.rids) for f in drain(box)] == [["q"], ["q", "h"]]


def test_slow_clients_are_noticed() -> None:
    """Too much that waits, or too much that is not acknowledged; an ack of a former connection means nothing."""
    box = Outbox(max_waiting=2, max_unacked=2)
    box.push(joined("a"))
    box.push(joined("b"))
    with pytest.raises(SlowClientError):
        box.push(joined("c"))
    assert len(drain(box)) == 2
    box.ack(99)
    box.push(joined("d"))
    with pytest.raises(SlowClientError):
        box.pop()
    box.ack(2)
    box.push(joined("e"))
    assert box.pop() is not None


def test_replies_are_kept_but_those_that_invite_a_retry() -> None:
    """The cache is bounded, and a retry is really tried."""
    cache = ReplyCache()
    cache.put(1, Frame(error=pb.Error(code=common.ERROR_CODE_UNAVAILABLE, retry_after_ms=5)))
    assert cache.get(1) is None
    for number in range(2, MAX_KEPT + 10):
        cache.put(number, Frame(done=pb.Done()))
    assert cache.get(2) is None
    assert cache.get(MAX_KEPT + 9) is not None
    assert cache.last_request_id == MAX_KEPT + 9


def test_token_bucket_in_virtual_time() -> None:
    """A burst, then the rate; the wait that is told suffices."""
    bucket = TokenBucket(rate=10, burst=3)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait_ms() == 100
    assert bucket.take(0.1)
    assert not bucket.take(0.15)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]


def heard(node: str, *levels: tuple[str, int]) -> state_pb2.NodeSpeakers:
    tracks = [state_pb2.TrackLevel(track_id="t", participant_id=who, level=level) for who, level in levels]
    return state_pb2.NodeSpeakers(node_id=node, tracks=tracks)


def test_speakers_of_all_nodes_loudest_first() -> None:
    """One list, each once; a node that went silent for good is forgotten."""
    merger = SpeakerMerger()
    assert merger.update(heard("n1", ("b", 200), ("a", 40)), 0.0)
    assert merger.current == (("b", 127), ("a", 40))
    assert not merger.update(heard("n1", ("b", 127), ("a", 40)), 1.0)
    assert merger.update(heard("n2", ("a", 60)), 1.0)
    assert merger.current == (("b", 127), ("a", 60))
    # Levels that hardly move are not told to everybody.
    assert not merger.update(heard("n2", ("a", 63)), 1.0)
    assert merger.refresh(3.99) is False
    assert merger.refresh(4.0)
    assert merger.current == ()
    assert merger.update(heard("n2", ("a", 60)), 5.0)
    assert merger.update(heard("n2"), 5.1)
    assert merger.current == ()


def test_the_floor_is_kept_over_nodes() -> None:
    """Who is dominant at his node stays so in the room until another node's is clearly louder."""
    merger = SpeakerMerger()
    merger.update(heard("n1", ("a", 80), ("b", 90)), 0.0)
    assert [who for who, _ in merger.current] == ["a", "b"]
    merger.update(heard("n2", ("c", 82)), 0.1)
    assert [who for who, _ in merger.current] == ["a", "b", "c"]
    merger.update(heard("n2", ("c", 84)), 0.2)
    assert [who for who, _ in merger.current] == ["c", "b", "a"]
    merger.update(heard("n1", ("a", 86), ("b", 90)), 0.3)
    assert [who for who, _ in merger.current] == ["c", "b", "a"]
