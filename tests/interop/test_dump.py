"""`make dump`: a person can read what a running room forwards."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mrtc_embedded.dump import readable
from mrtc_sdk.pattern import PatternTrack

from tests.interop.test_python_room import new_room
from tests.support.media import Watcher, joined, remote_track
from tests.support.suite import RunningSuite

pytestmark = pytest.mark.integration


def run_dump(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the tool as `make dump` does."""
    command = [sys.executable, "-m", "mrtc_embedded.dump", "--data", str(data_dir), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def dump(suite: RunningSuite, room: str) -> list[dict[str, Any]]:
    """What it prints of a room: one entry per rtcmcu node."""
    ended = run_dump(suite.data_dir, room)
    assert ended.returncode == 0, ended.stderr
    nodes: list[dict[str, Any]] = json.loads(ended.stdout)["nodes"]
    return nodes


async def test_a_room_with_media_is_described(suite: RunningSuite) -> None:
    """Publisher's stream, track and the subscriber's slot are there, by their names."""
    room = new_room()
    publisher_only = {"audio_slots": 0, "video_slots": 0}
    async with (
        joined(suite.url, suite.token(room, "alice"), room, **publisher_only) as alice,
        joined(suite.url, suite.token(room, "bob"), room) as bob,
    ):
        publication = await alice.publish(PatternTrack(33))
        watcher = Watcher((await remote_track(bob, "video", "alice")).media)
        await watcher.sees(33)
        nodes = dump(suite, room)
        await watcher.aclose()
    dumps = [node["dump"] for node in nodes]
    track_id = publication.tracks[0].id
    assert any(track["id"] == track_id and track["origin"] == "transport" for d in dumps for track in d["tracks"])
    transports = [transport for d in dumps for transport in d["transports"]]
    assert {transport["identity"] for transport in transports} == {"alice", "bob"}
    assert all(transport["is_connected"] for transport in transports)
    assert [s["track"] for t in transports for s in t["streams"] if s["track"]] == [track_id]
    carried = [slot for t in transports for slot in t["slots"] if slot["track"] == track_id]
    assert len(carried) == 1
    assert carried[0]["packets"] > 0


def test_a_dump_has_a_line_for_each_thing() -> None:
    """Whose it is comes first; nothing is lost or changed."""
    slots = [{"bytes": 5, "mid": "2", "target": [0, 2]}, {"bytes": 0, "mid": "3", "target": None}]
    dump = {
        "nodes": [{"state": "ready", "id": "m", "dump": {"transports": [{"age_ms": 3, "id": "t", "slots": slots}]}}]
    }
    text = readable(dump)
    assert json.loads(text) == dump
    lines = [line.strip() for line in text.splitlines()]
    assert '{"mid": "2", "bytes": 5, "target": [0, 2]},' in lines
    assert '"id": "t", "age_ms": 3,' in lines


def test_an_unknown_room_is_empty_on_every_node(suite: RunningSuite) -> None:
    """No error: a room that nobody is in has no state."""
    nodes = dump(suite, new_room())
    assert len(nodes) == suite.options.mcus
    assert all(node["state"] == "ready" and not node["dump"]["transports"] for node in nodes)


def test_the_file_of_ports_is_for_its_owner_only(suite: RunningSuite) -> None:
    """Others on the machine need not know where the suite listens."""
    assert stat.S_IMODE((suite.data_dir / "suite.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (None, "make run"),
        ("{", "damaged"),
        ('{"master_grpc_port": 9}', "is the suite running?"),
    ],
    ids=["absent", "damaged", "stale"],
)
def test_without_a_suite_it_says_so(tmp_path: Path, content: str | None, hint: str) -> None:
    """One sentence that names the next step, never a traceback."""
    if content is not None:
        (tmp_path / "suite.json").write_text(content)
        (tmp_path / "secrets.json").write_text('{"cluster_secret": "s"}')
    ended = run_dump(tmp_path, "lobby")
    assert ended.returncode == 1
    assert hint in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_bad_room_name_is_refused(suite: RunningSuite) -> None:
    """Names have 1 to 128 bytes."""
    ended = run_dump(suite.data_dir, "x" * 200)
    assert ended.returncode == 1
    assert "128 bytes" in ended.stderr
