"""A played file seen in a browser."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.caller import Caller
from tests.support.api import RoomApi
from tests.support.pattern_file import make_pattern_file


def test_a_played_file_is_seen_and_heard(alice: Caller, room: str, api: RoomApi, tmp_path: Path) -> None:
    """The virtual participant shows the file's picture, plays its tone, and leaves at its end."""
    source = make_pattern_file(tmp_path / "film.mp4", 150, 600.0, 10)
    alice.join(room, "alice")
    api.start_vod(api.upload(source), identity="film")
    alice.event("participantJoined", "film", timeout_s=20)
    alice.sees("film", 150, "file")
    alice.hears("film", 600)
    alice.event("participantLeft", "film", timeout_s=30)
