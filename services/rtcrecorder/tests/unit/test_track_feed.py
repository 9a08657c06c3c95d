"""How tracks come from other nodes: few calls for many, and nothing held that nobody follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import cast

from mrtc_common.relay import ImportResult, RelayManager
from mrtc_common.relay_types import RelayedTrack
from mrtc_rtcrecorder.adapters.track_feed_engine import EngineTrackFeed, SinkEngine, TrackChanges
from mrtc_rtcrecorder.core.frames import Kind
from mrtc_rtcrecorder.core.room_view import WantedTrack


class FakeRelays:
    """Imports when it is let to.

    Attributes:
        mute: nodes that never answer.
    """

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.mute: set[str] = set()
        self.calls: list[dict[str, str]] = []
        self.released: list[str] = []

    async def import_tracks(self, wanted: Mapping[str, str], room_key: str, *, holder: str) -> ImportResult:
        """Has all of them."""
        self.calls.append(dict(wanted))
        if self.mute.intersection(wanted.values()):
            await asyncio.Event().wait()
        await self.may_answer.wait()
        return ImportResult({track_id: RelayedTrack(track_id, "audio", "opus", ()) for track_id in wanted})

    def release_track(self, track_id: str, *, holder: str) -> None:
        """Notes it."""
        self.released.append(track_id)


class FakeEngine:
    """Its sinks have no frames."""

    def __init__(self) -> None:
        self.sinks: list[str] = []

    async def create_sink(self, *, sink: str, track: str) -> None:
        """Notes it."""
        self.sinks.append(track)

    async def close_sink(self, *, sink: str) -> None:
        """Nothing to do."""

    async def frames(self, sink: str) -> AsyncIterator[None]:
        """Waits for ever."""
        await asyncio.Event().wait()
        yield None


def _feed(relays: FakeRelays, engine: FakeEngine) -> EngineTrackFeed:
    return EngineTrackFeed(
        cast(SinkEngine, engine), cast(RelayManager, relays), TrackChanges(), room_key="demo/room", holder="rec_1"
    )


def _follow(feed: EngineTrackFeed, name: str, node: str = "mcu_1") -> asyncio.Task[None]:
    track = WantedTrack(name, name, Kind.AUDIO, node, "opus", False, "pub", "somebody")
    return asyncio.create_task(feed.follow(track, lambda: None, lambda frame: None))


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_is_wanted_at_once_is_imported_by_one_call() -> None:
    """A room of many would be recorded late if each track waited for the ones before."""
    relays, engine = FakeRelays(), FakeEngine()
    feed = _feed(relays, engine)
    following = [_follow(feed, f"t{number}") for number in range(50)]
    await _turns()
    assert relays.calls == [{f"t{number}": "mcu_1" for number in range(50)}]
    following.append(_follow(feed, "later"))
    await _turns()
    assert relays.calls[1:] == [{"later": "mcu_1"}]
    relays.may_answer.set()
    await _turns()
    assert len(engine.sinks) == 51
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    assert len(relays.released) == 51


async def test_a_node_that_does_not_answer_holds_up_nobody_elses_tracks() -> None:
    """One that hangs is asked for seconds."""
    relays, engine = FakeRelays(), FakeEngine()
    relays.mute, feed = {"mcu_2"}, _feed(relays, engine)
    relays.may_answer.set()
    following = [_follow(feed, "a"), _follow(feed, "b", "mcu_2"), _follow(feed, "c")]
    await _turns()
    assert relays.calls == [{"a": "mcu_1", "c": "mcu_1"}, {"b": "mcu_2"}]
    assert engine.sinks == ["a", "c"]
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)


async def test_what_is_given_up_while_it_is_imported_is_let_go() -> None:
    """The call goes on for the others, and must not hold what nobody follows any more."""
    relays, engine = FakeRelays(), FakeEngine()
    feed = _feed(relays, engine)
    given_up, stays = _follow(feed, "given up"), _follow(feed, "stays")
    await _turns()
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    relays.released.clear()
    relays.may_answer.set()
    await _turns()
    assert relays.released == ["given up"]
    assert engine.sinks == ["stays"]
    stays.cancel()
    await asyncio.gather(stays, return_exceptions=True)
