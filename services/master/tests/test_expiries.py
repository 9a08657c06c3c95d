"""What counts as expired when the server's clock was set."""

from mrtc_master.core.expiries import Expiries

TTL_S = 30.0


def test_what_was_silent_for_its_time_is_gone() -> None:
    expiries = Expiries(TTL_S)
    expiries.written("s1", 0.0)
    assert expiries.removed("s1", 29.9, is_expired=True)
    assert expiries.due(100.0) == []


def test_what_was_deleted_is_gone_at_once() -> None:
    expiries = Expiries(TTL_S)
    expiries.written("s1", 0.0)
    assert expiries.removed("s1", 1.0, is_expired=False)


def test_what_expired_too_early_lives_on_when_it_is_written_again() -> None:
    expiries = Expiries(TTL_S)
    expiries.written("s1", 0.0)
    assert not expiries.removed("s1", 5.0, is_expired=True)
    expiries.written("s1", 10.0)
    assert expiries.due(35.0) == []
    assert expiries.removed("s1", 40.0, is_expired=True)


def test_what_expired_too_early_is_gone_when_its_time_has_passed() -> None:
    expiries = Expiries(TTL_S)
    expiries.written("s1", 0.0)
    assert not expiries.removed("s1", 5.0, is_expired=True)
    assert expiries.due(29.0) == []
    assert expiries.due(30.0) == ["s1"]
    assert expiries.due(31.0) == []


def test_of_what_nobody_heard_nothing_is_known() -> None:
    assert Expiries(TTL_S).removed("s1", 0.0, is_expired=True)
