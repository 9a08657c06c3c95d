"""Real aiortc peers through real sockets: pictures and tones are decoded and recognised."""

import asyncio
import os

import pytest
from mrtc_engine import AsyncEngine, Event

from . import peers
from .peers import Colour, Tone, is_near, publisher, subscribe, until, viewer

pytestmark = pytest.mark.integration

GREEN = (150, 60, 60)
PURPLE = (90, 190, 170)


async def test_two_peers_see_and_hear_each_other(engine: AsyncEngine) -> None:
    """The picture's colour and the tone's frequency tell the sender."""
    async with (
        publisher(engine, "a", video=Colour(GREEN), audio=Tone(440)) as tracks,
        viewer(engine, "b") as seen,
    ):
        await subscribe(engine, "b", tracks)
        await until(lambda: is_near(seen.yuv, GREEN), "the picture")
        await until(lambda: abs(seen.loudest_hertz() - 440) < 10, "the tone")


async def test_a_slot_changes_its_track_without_renegotiation(engine: AsyncEngine) -> None:
    """The same receiver shows another sender; no SDP is exchanged."""
    async with (
        publisher(engine, "a", video=Colour(GREEN)) as first,
        publisher(engine, "b", video=Colour(PURPLE)) as second,
        viewer(engine, "c", ("video",)) as seen,
    ):
        await subscribe(engine, "c", first)
        await until(lambda: is_near(seen.yuv, GREEN), "the first")
        await subscribe(engine, "c", second)
        await until(lambda: is_near(seen.yuv, PURPLE), "the second")


async def test_a_muted_track_stops_and_comes_back(engine: AsyncEngine) -> None:
    """Mute is not a renegotiation either."""
    async with publisher(engine, "a", video=Colour(GREEN)) as tracks, viewer(engine, "b", ("video",)) as seen:
        await subscribe(engine, "b", tracks)
        await until(lambda: seen.pictures > 5, "pictures")
        await engine.set_track_muted(track=tracks["video"], is_muted=True)
        await asyncio.sleep(0.5)
        count = seen.pictures
        await asyncio.sleep(0.5)
        assert seen.pictures <= count + 1
        await engine.set_track_muted(track=tracks["video"], is_muted=False)
        await until(lambda: seen.pictures > count + 10, "pictures again")


async def test_a_room_spreads_over_workers(engine: AsyncEngine) -> None:
    """A subscriber on another worker than the publisher: packets cross between threads by reference."""
    async with publisher(engine, "a", video=Colour(GREEN)) as tracks:
        # So many that the room's next transport goes to the other worker (see the router's rule).
        for n in range(20):
            await engine.create_transport(transport=f"idle-{n}", room="room", offer=peers.OFFER)
        async with viewer(engine, "b", ("video",)) as seen:
            await subscribe(engine, "b", tracks)
            await until(lambda: is_near(seen.yuv, GREEN), "the picture")
    await until(lambda: sum(c.get("tx_shard_packets", 0) for c in engine.counters()) > 0, "packets crossed")


async def test_a_track_crosses_to_another_engine_by_relay() -> None:
    """Two engines, one encrypted association; the far side treats the track as its own."""
    async with (
        AsyncEngine(peers.config(workers=2)) as near,
        AsyncEngine(peers.config(workers=1)) as far,
        publisher(near, "a", video=Colour(PURPLE), audio=Tone(600)) as tracks,
        viewer(far, "b") as seen,
    ):
        keys = [os.urandom(16), os.urandom(12), os.urandom(16), os.urandom(12)]
        await near.open_relay(
            relay="r",
            remote=far.relay_address("r"),
            tx_key=keys[0],
            tx_salt=keys[1],
            rx_key=keys[2],
            rx_salt=keys[3],
        )
        await far.open_relay(
            relay="r",
            remote=near.relay_address("r"),
            tx_key=keys[2],
            tx_salt=keys[3],
            rx_key=keys[0],
            rx_salt=keys[1],
        )
        for handle, track in enumerate(tracks.values()):
            info = await near.export_track(relay="r", track=track, handle=handle)
            imported = await far.import_track(
                relay="r", track=track, room="room", handle=handle, codec=info.codec, rids=info.rids
            )
            assert (imported.track, imported.kind, imported.codec) == (info.track, info.kind, info.codec)
        await subscribe(far, "b", tracks)
        await until(lambda: is_near(seen.yuv, PURPLE), "the picture")
        await until(lambda: abs(seen.loudest_hertz() - 600) < 10, "the tone")


async def test_a_sink_gets_whole_frames_of_a_peer(engine: AsyncEngine) -> None:
    """It begins with a key frame; times of both kinds are on one clock."""
    async with publisher(engine, "a", video=Colour(GREEN), audio=Tone(440)) as tracks:
        for kind, track in tracks.items():
            await engine.create_sink(sink=kind, track=track)
        frames = {kind: [] for kind in tracks}
        async with asyncio.timeout(peers.DEADLINE_S):
            for kind, kept in frames.items():
                async for frame in engine.frames(kind):
                    kept.append(frame)
                    if len(kept) == 30:
                        break
        assert frames["video"][0].is_keyframe
        assert not any(frame.is_discontinuous for frame in frames["video"][1:])
        assert [frame.codec for frame in (frames["video"][0], frames["audio"][0])] == ["vp8", "opus"]
        skew = frames["video"][-1].captured_at_us - frames["audio"][-1].captured_at_us
        assert abs(skew) < 3_000_000


async def test_what_happens_is_told(engine: AsyncEngine) -> None:
    """Connected, started, and, when the peer goes, ended and closed."""
    async with publisher(engine, "a", audio=Tone(440)) as tracks:
        seen = []

        async def follow() -> None:
            async for event in engine.events:
                seen.append(event)

        task = asyncio.create_task(follow())
        await until(lambda: any(isinstance(e, Event.TrackStarted) for e in seen), "the track starts")
        assert any(isinstance(e, Event.TransportConnected) and e.transport == "a" for e in seen)
    await until(lambda: any(isinstance(e, Event.TransportClosed) for e in seen), "the transport closes")
    assert any(isinstance(e, Event.TrackEnded) and e.track == tracks["audio"] for e in seen)
    task.cancel()
