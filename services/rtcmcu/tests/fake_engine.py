"""An engine without packets: the contract of commands, replies and events, for tests of what is around an engine."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class EngineError(Exception):
    def __init__(self, code: str, message: str = "") -> None:
        self.code, self.message = code, message
        super().__init__(message)


def event(kind: str, **fields: Any) -> Any:
    made = type(kind, (), {})()
    made.__dict__.update(fields)
    return made


class FakeWorld:
    """Engines that can reach each other by relay: who exports what over which relay."""

    def __init__(self) -> None:
        self.exports: dict[tuple[str, str], int] = {}


class FakeEngine:
    def __init__(self, world: FakeWorld, name: str, *, slots: int = 2) -> None:
        self.world, self.name, self.slot_count = world, name, slots
        self.transports: dict[str, str] = {}
        self.tracks: dict[str, Any] = {}
        self.origin: dict[str, str] = {}
        self.relays: set[str] = set()
        self.muted: dict[str, bool] = {}
        self.caps: dict[str, dict[str, int]] = {}
        self.track_caps: dict[str, int] = {}
        self.subscribed: dict[str, list[dict[str, Any]]] = {}
        self.audio_top_n: dict[str, int] = {}
        self.calls: list[str] = []
        self.data_access: dict[str, tuple[str, bool]] = {}
        self.capture: dict[str, Any] = {}
        self.data_out: dict[tuple[str, str], int] = {}
        self.data_in: dict[tuple[str, str], int] = {}
        self._events: asyncio.Queue[Any] = asyncio.Queue()

    @property
    def events(self) -> AsyncIterator[Any]:
        return self._iterate()

    def emit(self, kind: str, **fields: Any) -> None:
        self._events.put_nowait(event(kind, **fields))

    def end_track(self, track: str) -> None:
        """As when the track's origin ends by itself."""
        self.tracks.pop(track)
        self.origin.pop(track)
        self.emit("TrackEnded", track=track)

    async def aclose(self) -> None:
        self._events.put_nowait(None)

    async def create_transport(self, *, transport: str, room: str, offer: str, **caps: int) -> Any:
        self.calls.append("create_transport")
        self.caps[transport] = caps
        if transport in self.transports:
            raise EngineError("already_exists")
        if offer == "bad":
            raise EngineError("bad_offer", "line 1: no")
        self.transports[transport] = room
        return SimpleNamespace(answer=f"answer to {offer}", lines=self._lines())

    async def set_caps(self, *, transport: str, **caps: int) -> None:
        self.caps[transport] = caps

    async def set_track_cap(self, *, track: str, max_bps: int) -> None:
        self.track_caps[track] = max_bps

    async def set_data_access(self, *, transport: str, identity: str, can_publish: bool) -> None:
        self.calls.append("set_data_access")
        self.data_access[transport] = (identity, can_publish)

    async def export_data(self, *, relay: str, room: str, handle: int) -> None:
        self.data_out[relay, room] = handle

    async def import_data(self, *, relay: str, room: str, handle: int) -> None:
        self.data_in[relay, room] = handle

    async def stop_data(self, *, relay: str, room: str) -> None:
        self.data_in.pop((relay, room), None)
        self.data_out.pop((relay, room), None)

    async def negotiate(self, *, transport: str, offer: str) -> Any:
        self.calls.append("negotiate")
        return SimpleNamespace(answer=f"answer to {offer}", lines=self._lines())

    async def export_transport(self, *, transport: str, purpose: str, key: bytes) -> bytes:
        if transport not in self.transports:
            raise EngineError("transport_not_found")
        if purpose != "go_on":
            return key
        self.calls.append(f"export {transport}")
        return b"final " + key

    async def import_transport(self, *, state: bytes, key: bytes, **request: Any) -> Any:
        if state != key:
            raise EngineError("bad_request", "another key")
        return await self.create_transport(**request)

    async def complete_transport(self, *, transport: str, state: bytes, key: bytes) -> None:
        if state != b"final " + key:
            raise EngineError("bad_request", "another key")
        self.calls.append(f"complete {transport}")

    async def close_transport(self, *, transport: str) -> None:
        self.transports.pop(transport, None)
        for track in [track for track, origin in self.origin.items() if origin == transport]:
            await self.unpublish_track(track=track)

    async def publish_track(self, *, track: str, transport: str, mid: str) -> Any:
        if track in self.tracks:
            raise EngineError("already_exists")
        if transport not in self.transports:
            raise EngineError("transport_not_found")
        return self._add(track, transport, "vp8", [])

    async def unpublish_track(self, *, track: str) -> None:
        self.calls.append(f"unpublish {track}")
        self.tracks.pop(track, None)
        self.origin.pop(track, None)

    async def set_track_muted(self, *, track: str, is_muted: bool) -> None:
        self.muted[track] = is_muted

    async def set_subscriptions(
        self, *, transport: str, subscriptions: list[dict[str, Any]], audio_top_n: int = 0
    ) -> Any:
        self.calls.append("set_subscriptions")
        self.audio_top_n[transport] = audio_top_n
        if transport not in self.transports:
            raise EngineError("transport_not_found")
        self.subscribed[transport] = subscriptions
        there = [s["track"] for s in subscriptions if s["track"] in self.tracks]
        placed = there[: self.slot_count]
        slots = [(str(n), "video", placed[n] if n < len(placed) else None) for n in range(self.slot_count)]
        missing = [s["track"] for s in subscriptions if s["track"] not in self.tracks]
        unplaced = there[self.slot_count :]
        return SimpleNamespace(slots=slots, version=0, unplaced=unplaced, no_common_codec=[], missing=missing)

    async def stats(self, *, transports: list[str] | None = None) -> Any:
        self.calls.append("stats")
        wanted = transports or sorted(self.transports)
        return {"transports": [{"id": transport} for transport in wanted if transport in self.transports]}

    async def dump_room(self, *, room: str) -> Any:
        tracks = [{"id": track} for track in self.tracks]
        return {"room": room, "tracks": tracks, "relays": [{"id": relay} for relay in self.relays]}

    async def start_capture(self, *, path: str, **settings: Any) -> None:
        self.calls.append("start_capture")
        if self.capture:
            raise BlockingIOError
        self.capture = {"path": path, **settings}
        Path(path).touch()

    async def stop_capture(self) -> tuple[int, int, int, bool] | None:
        ended, self.capture = self.capture, {}
        return (5, 600, 1, False) if ended else None

    def relay_address(self, relay: str) -> str:
        return "127.0.0.1:9"

    async def open_relay(self, *, relay: str, **_keys: Any) -> None:
        self.relays.add(relay)

    async def close_relay(self, *, relay: str) -> None:
        self.relays.discard(relay)
        for track in [track for track, origin in self.origin.items() if origin == relay]:
            self.end_track(track)
        for key in [key for key in self.world.exports if key[0] == relay]:
            del self.world.exports[key]

    async def export_track(self, *, relay: str, track: str, handle: int) -> Any:
        if relay not in self.relays:
            raise EngineError("relay_not_found")
        if track not in self.tracks:
            raise EngineError("track_not_found")
        self.world.exports[relay, track] = handle
        return self.tracks[track]

    async def move_import(self, *, relay: str, track: str, handle: int) -> Any:
        if relay not in self.relays:
            raise EngineError("relay_not_found")
        if track not in self.tracks:
            raise EngineError("track_not_found")
        assert self.world.exports[relay, track] == handle
        assert self.origin[track] in self.relays
        self.calls.append(f"move {track}")
        self.origin[track] = relay
        return self.tracks[track]

    async def unexport_track(self, *, relay: str, track: str) -> None:
        self.world.exports.pop((relay, track), None)

    async def import_track(self, *, relay: str, track: str, room: str, handle: int, codec: str, rids: list[str]) -> Any:
        if relay not in self.relays:
            raise EngineError("relay_not_found")
        if track in self.tracks:
            raise EngineError("already_exists")
        assert self.world.exports[relay, track] == handle
        return self._add(track, relay, codec, rids)

    def counters(self) -> list[dict[str, int]]:
        # In no order, as the engine gives them.
        delays = {
            "tx_delay_us_le_1000": 2,
            "tx_delay_us_le_inf": 1,
            "tx_delay_us_sum": 2_500_000,
            "tx_delay_us_le_250": 3,
        }
        return [{"tx_rtp_packets": 7, "drop_malformed": 2, **delays}]

    def local_addresses(self) -> list[tuple[str, str]]:
        return [("udp", "127.0.0.1:9")]

    def _add(self, track: str, origin: str, codec: str, rids: list[str]) -> Any:
        self.tracks[track] = SimpleNamespace(track=track, kind="video", codec=codec, rids=rids)
        self.origin[track] = origin
        return self.tracks[track]

    def _lines(self) -> list[Any]:
        return [SimpleNamespace(mid="0", kind="video", is_inbound=True, codecs=["vp8"], rids=["q", "h"])]

    async def _iterate(self) -> AsyncIterator[Any]:
        while (item := await self._events.get()) is not None:
            yield item
