"""Pure parts of rtcmcu."""

import math

import pytest
from mrtc.media.v1 import media_service_pb2 as pb
from mrtc_common.errors import UnavailableError
from mrtc_common.settings import SettingsError
from mrtc_rtcmcu.config import McuSettings
from mrtc_rtcmcu.core.load import LoadLimits, node_load
from mrtc_rtcmcu.core.relief import SETTLE_S, Relief, ReliefPolicy
from mrtc_rtcmcu.core.speaker_pacing import CHANGE_INTERVAL_S, LEVEL_INTERVAL_S, REPEAT_INTERVAL_S, SpeakerPacing
from mrtc_rtcmcu.core.transports import TransportState
from mrtc_rtcmcu.core.turns import ASK_AGAIN_S, MOVE_S, Turns
from mrtc_rtcmcu.core.watchers import QUEUE_SIZE, Watchers


def _connected(transport_id: str) -> pb.WatchTransportsResponse:
    return pb.WatchTransportsResponse(transport_id=transport_id, connected=pb.TransportConnected())


def test_new_speakers_are_due_at_once_and_levels_twice_a_second() -> None:
    pacing = SpeakerPacing()
    pacing.update("r", (("a", 90),))
    assert pacing.due(0.0) == [("r", (("a", 90),))]
    pacing.update("r", (("a", 80),))
    assert pacing.due(LEVEL_INTERVAL_S - 0.01) == []
    assert pacing.next_at(0.1) == pytest.approx(LEVEL_INTERVAL_S)
    assert pacing.due(LEVEL_INTERVAL_S) == [("r", (("a", 80),))]


def test_another_speaker_is_due_soon() -> None:
    pacing = SpeakerPacing()
    pacing.update("r", (("a", 90),))
    pacing.due(0.0)
    pacing.update("r", (("b", 90), ("a", 70)))
    assert pacing.due(CHANGE_INTERVAL_S / 2) == []
    assert pacing.due(CHANGE_INTERVAL_S) != []


def test_silence_is_told_once_and_then_forgotten() -> None:
    pacing = SpeakerPacing()
    pacing.update("r", (("a", 90),))
    pacing.due(0.0)
    pacing.update("r", ())
    assert pacing.due(1.0) == [("r", ())]
    assert pacing.due(2.0) == []
    assert pacing.next_at(2.0) is None
    assert pacing._rooms == {}


def test_a_speaker_is_told_again_and_again() -> None:
    """Whoever hears nothing of a node for some seconds takes it for gone."""
    pacing = SpeakerPacing()
    pacing.update("r", (("a", 90),))
    pacing.due(0.0)
    assert pacing.due(REPEAT_INTERVAL_S - 0.01) == []
    assert pacing.next_at(0.0) == REPEAT_INTERVAL_S
    assert pacing.due(REPEAT_INTERVAL_S) == [("r", (("a", 90),))]


def test_workers_of_one_room_are_told_as_one_list() -> None:
    """One worker's silence does not end what another one hears, and the floor is kept over workers."""
    pacing = SpeakerPacing()
    pacing.update("r", (("a", 80),), worker=0)
    pacing.update("r", (("b", 82), ("c", 70)), worker=1)
    assert pacing.due(0.0) == [("r", (("a", 80), ("b", 82), ("c", 70)))]
    pacing.update("r", (("b", 84), ("c", 90)), worker=1)
    assert pacing.due(1.0) == [("r", (("b", 84), ("c", 90), ("a", 80)))]
    pacing.update("r", (), worker=1)
    assert pacing.due(2.0) == [("r", (("a", 80),))]


def test_speakers_that_come_and_go_between_looks_are_not_told() -> None:
    pacing = SpeakerPacing()
    pacing.update("r", (("a", 90),))
    pacing.update("r", ())
    assert pacing.due(0.0) == []


async def test_a_watcher_that_does_not_keep_up_is_ended() -> None:
    watchers = Watchers()
    watcher = watchers.add([])
    for _ in range(QUEUE_SIZE + 1):
        watchers.publish(_connected("t"))
    with pytest.raises(UnavailableError):
        await anext(watcher.events())


async def test_a_watcher_gets_only_what_it_asked_for() -> None:
    watchers = Watchers()
    watcher = watchers.add(["t2"])
    watchers.publish(_connected("t1"))
    watchers.publish(_connected("t2"))
    watchers.end()
    assert [event.transport_id async for event in watcher.events()] == ["t2"]


def test_there_is_a_limit_of_watchers() -> None:
    watchers = Watchers(limit=1)
    first = watchers.add([])
    with pytest.raises(UnavailableError):
        watchers.add([])
    watchers.remove(first)
    watchers.add([])


@pytest.mark.parametrize(
    ("cpu", "packets", "transports", "expected"),
    [(1.0, 0, 0, 0.5), (0, 750, 0, 0.75), (0, 0, 9, 0.9), (8.0, 0, 0, 1.0), (0.2, 100, 1, 0.1)],
)
def test_load_is_the_largest_part_against_its_limit(
    cpu: float, packets: float, transports: int, expected: float
) -> None:
    limits = LoadLimits(max_transports=10, max_egress_packets_per_s=1000, max_egress_bps=1e6, cpu_cores=2)
    load = node_load(
        limits,
        cpu_cores=cpu,
        egress_packets_per_s=packets,
        egress_bps=0,
        ingress_bps=0,
        transports=transports,
        rooms=0,
    )
    assert load.load == pytest.approx(expected)


def _clients(*rooms: str, is_connected: bool = True) -> list[TransportState]:
    """One transport for each; its id is the room and a number."""
    return [TransportState(f"{room}{n}", room, f"p{n}", is_connected=is_connected) for n, room in enumerate(rooms)]


def _relief() -> Relief:
    return Relief(ReliefPolicy(above=0.95, below=0.85, after_s=30.0))


def test_who_is_too_full_for_long_asks_some_until_it_is_not() -> None:
    relief, clients = _relief(), _clients(*"a" * 60)
    asked = {now: relief.due(0.97, clients, now) for now in range(0, 90, 2)}
    assert {now: len(ids) for now, ids in asked.items() if ids} == {30: 3, 30 + SETTLE_S: 3, 30 + 2 * SETTLE_S: 3}
    assert len({one for ids in asked.values() for one in ids}) == 9
    # Between the two limits it goes on; below both it ends, and does not begin anew at once.
    assert relief.due(0.9, clients, 100.0) != []
    assert relief.due(0.84, clients, 130.0) == []
    assert relief.due(0.97, clients, 160.0) == []


def test_a_load_that_is_not_too_high_all_the_time_begins_no_relief() -> None:
    relief, clients = _relief(), _clients("a", "a")
    loads = [0.97] * 14 + [0.94] + [0.97] * 15
    assert not any(relief.due(load, clients, 2.0 * n) for n, load in enumerate(loads))


def test_small_rooms_go_first_and_whole() -> None:
    relief = Relief(ReliefPolicy(above=0.95, below=0.85, after_s=0.0))
    clients = _clients(*"b" * 30, "c", "c", "a", "a", "a", *"b" * 30)
    asked = [relief.due(1.0, clients, n * SETTLE_S) for n in range(2)]
    assert [[one[0] for one in ids] for ids in asked] == [["c", "c", "a"], ["a", "a", "b"]]


def test_who_stayed_is_asked_again_late_and_who_is_not_connected_never() -> None:
    relief = Relief(ReliefPolicy(above=0.95, below=0.85, after_s=0.0))
    clients = [*_clients("a"), *_clients("b", is_connected=False)]
    asked = [now for now in range(0, 200, 2) if relief.due(1.0, clients, now)]
    assert len(asked) == 2
    assert asked[1] - asked[0] >= ASK_AGAIN_S


def test_no_relief_at_all() -> None:
    relief = Relief(ReliefPolicy(above=0.0, below=0.85, after_s=0.0))
    assert relief.due(1.0, _clients("a"), 0.0) == []


def _asked(turns: Turns, clients: list[TransportState], *, until_s: float, goes_after_s: float) -> dict[str, float]:
    """When each was asked first; who was asked is gone after a time."""
    asked: dict[str, float] = {}
    for step in range(round(until_s / 0.05)):
        now = 1000 + 0.05 * step
        here = [one for one in clients if now < asked.get(one.transport_id, math.inf) + goes_after_s]
        if one := turns.next(here, now):
            asked.setdefault(one, now)
    return {one: round(at - 1000, 2) for one, at in asked.items()}


def test_in_a_room_one_is_asked_after_the_other_in_all_rooms_at_the_same_time() -> None:
    asked = _asked(Turns(20.0), _clients("a", "a", "b", "a", "b"), until_s=20, goes_after_s=3.4)
    assert asked == {"a0": 0.0, "b2": 0.05, "a1": MOVE_S, "b4": MOVE_S + 0.05, "a3": 2 * MOVE_S}


def test_a_large_room_is_asked_within_the_time_for_it() -> None:
    asked = _asked(Turns(20.0), _clients(*"a" * 100), until_s=25, goes_after_s=3.4)
    assert len(asked) == 100
    assert max(asked.values()) <= 20


def test_who_cannot_go_is_asked_again_and_holds_up_nobody() -> None:
    turns, clients = Turns(20.0), [*_clients(*"a" * 40), *_clients("b", is_connected=False)]
    asked = [one for step in range(900) if (one := turns.next(clients, 0.05 * step))]
    assert set(asked[:40]) == {one.transport_id for one in clients[:40]} == set(asked[40:80])
    alone = [now for now in range(20) if turns.next(_clients("c"), now)]
    assert alone == [0, ASK_AGAIN_S, 2 * ASK_AGAIN_S, 3 * ASK_AGAIN_S]


def test_relief_may_not_end_above_where_it_begins() -> None:
    with pytest.raises(SettingsError, match="relief_below"):
        McuSettings.from_values({"cluster_secret": "s" * 32, "relief_above": 0.8, "relief_below": 0.9})
    McuSettings.from_values({"cluster_secret": "s" * 32, "relief_above": 0, "relief_below": 0.9})
