"""The log of RTP numbers tells what lacked, what was asked for, and what came late, over the wrap."""

from __future__ import annotations

from tests.chaos.rtp_log import Event, holes


def test_holes_are_told_with_what_was_done_about_them() -> None:
    """One never came, one came two seconds late, one was only reordered."""
    log: list[Event] = [
        (0.0, "media", 65_533, 0, 100),
        (0.1, "media", 65_535, 0, 100),
        (0.1, "nack", [65_534], 0, 0),
        (0.2, "media", 2, 0, 100),
        (0.2, "nack", [65_534, 0, 1], 0, 0),
        (0.25, "media", 1, 0, 100),
        (2.3, "again", 0, 0, 100),
        (3.0, "media", 3, 0, 100),
    ]
    assert holes(log) == [
        {"number": 65_534, "missed_s": 2.9, "asked_s": [2.9, 2.8], "came_s": None},
        {"number": 0, "missed_s": 2.8, "asked_s": [2.8], "came_s": 0.7},
    ]
