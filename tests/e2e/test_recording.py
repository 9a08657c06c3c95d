"""Recordings of a call between two browsers, both kinds at once, checked by what is decoded from the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.e2e.caller import Caller
from tests.interop.test_recording import halves
from tests.support.api import RoomApi
from tests.support.probe_file import decode, streams
from tests.support.suite import RunningSuite
from tests.support.waiting import wait_for


def test_both_kinds_of_recording_hold_the_call(
    new_caller: Callable[[], Caller], room: str, suite: RunningSuite, tmp_path: Path
) -> None:
    """A5, A7: each browser's own file, not transcoded, and the mixed one with both pictures and both tones."""
    alice, bob = new_caller(), new_caller()
    alice.join(room, "alice")
    bob.join(room, "bob")
    alice.publish(21, 440)
    bob.publish(22, 1000)
    alice.sees("bob", 22)
    bob.sees("alice", 21)
    api = RoomApi(suite, room)
    single, mixed = api.start_recording("single"), api.start_recording("mixed")
    for recording in (single, mixed):
        wait_for(lambda recording=recording: recorded_ms(api, recording) > 6000, 60, "six seconds to be recorded")
    files = api.stop_recording(single)["files"]
    whole = api.stop_recording(mixed)["files"]
    for identity, number, tone in (("alice", 21, 440.0), ("bob", 22, 1000.0)):
        own = [api.download(file, tmp_path) for file in files if file["participant_identity"] == identity]
        contents = [decode(path) for path in own]
        assert {codec for path in own for codec in streams(path).values()} == {"vp8", "opus"}
        assert {seen for content in contents for _, seen, _ in content.patterns()} == {number}
        assert any(content.has_tone(tone) for content in contents)
    path = api.download(whole[0], tmp_path)
    assert streams(path) == {"video": "h264", "audio": "aac"}
    together = decode(path)
    assert {21, 22} <= set().union(*(halves(plane) for _, plane in together.pictures))
    assert together.has_tone(440.0) or together.has_tone(1000.0)


def recorded_ms(api: RoomApi, recording: str) -> int:
    """Length of the longest file so far."""
    return max((file["duration_ms"] for file in api.recording(recording)["files"]), default=0)
