"""Which sessions master keeps alive, as a pure function of time and of who serves."""

from mrtc_master.core.session_keeper import SessionKeeper

TTL_S = 20.0
SESSIONS = ["s1", "s2", "vod-v1"]


def _rounds(keeper: SessionKeeper, served: dict[float, bool], until: float) -> list[float]:
    """The times at which sessions are kept; asked twice a second."""
    times, is_served, now = [], True, 0.0
    while now < until:
        is_served = served.get(now, is_served)
        due = keeper.due(SESSIONS, is_served=is_served, now=now)
        if due:
            assert due == ["s1", "s2"], "a vod needs no signaling"
            times.append(now)
        now += 0.5
    return times


def test_nothing_is_kept_while_somebody_serves() -> None:
    assert _rounds(SessionKeeper(TTL_S), {}, 100.0) == []


def test_sessions_are_kept_four_times_a_ttl_while_nobody_serves() -> None:
    assert _rounds(SessionKeeper(TTL_S), {10.0: False}, 31.0) == [10.0, 15.0, 20.0, 25.0, 30.0]


def test_each_has_its_full_grace_when_somebody_serves_again() -> None:
    assert _rounds(SessionKeeper(TTL_S), {10.0: False, 17.0: True}, 60.0) == [10.0, 15.0, 17.0]


def test_a_second_absence_is_as_the_first() -> None:
    served = {10.0: False, 11.0: True, 12.0: False, 13.0: True}
    assert _rounds(SessionKeeper(TTL_S), served, 60.0) == [10.0, 11.0, 13.0]
