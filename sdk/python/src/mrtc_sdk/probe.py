"""`mrtc-probe`: two synthetic clients meet in a room; one sends, one receives; prints what a user would feel.

Prints one JSON line: `join_ms` (connect to the joined room), `first_audio_ms` and `first_frame_ms` (start of the
receiver's join to the first decoded sound and picture), `delay_ms_p50`/`_p95` (picture drawn to picture decoded),
`frames`, `freezes` (gaps over 300 ms), `loss` (share of packets the receiver missed), `ok`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field

import httpx
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, VideoFrame

from mrtc_sdk.errors import MrtcError
from mrtc_sdk.pattern import PatternTrack, ToneTrack, frequency_of, read_frame
from mrtc_sdk.room import RemoteTrack, Room, RoomOptions

FREEZE_S = 0.3
TONE_HZ = 440.0


@dataclass
class Report:
    """What the probe found; times in milliseconds, None: never came."""

    room: str
    join_ms: float | None = None
    first_audio_ms: float | None = None
    first_frame_ms: float | None = None
    delay_ms_p50: float | None = None
    delay_ms_p95: float | None = None
    frames: int = 0
    freezes: int = 0
    loss: float | None = None
    ok: bool = False
    error: str = ""
    delays_s: list[float] = field(default_factory=list, repr=False)

    def as_json(self) -> str:
        """One line."""
        values = {key: value for key, value in asdict(self).items() if key != "delays_s"}
        return json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in values.items()})


async def demo_token(url: str, room: str, identity: str) -> str:
    """A token of the demo app. Raises httpx.HTTPError if the suite does not serve the demo."""
    async with httpx.AsyncClient(base_url=url, timeout=10) as client:
        response = await client.get("/demo/token", params={"room": room, "identity": identity})
        response.raise_for_status()
        token: str = response.json()["token"]
        return token


async def probe(url: str, room: str, tokens: tuple[str, str], duration_s: float) -> Report:
    """Runs one probe with tokens of two identities. Never raises for what the suite does wrong; see `Report.error`."""
    report = Report(room)
    pattern = PatternTrack(secrets.randbelow(256))
    sender = receiver = None
    try:
        sender = await Room.connect(url, tokens[0], room, RoomOptions(audio_slots=0, video_slots=0))
        await sender.publish(pattern)
        await sender.publish(ToneTrack(TONE_HZ))
        began = time.monotonic()
        receiver = await Room.connect(url, tokens[1], room)
        report.join_ms = (time.monotonic() - began) * 1000
        await _measure(receiver, pattern, report, began, duration_s)
    except (MrtcError, OSError, TimeoutError, httpx.HTTPError) as error:
        report.error = str(error) or type(error).__name__
    finally:
        await asyncio.gather(*(room.leave() for room in (receiver, sender) if room is not None), return_exceptions=True)
    if report.delays_s:
        report.delay_ms_p50 = statistics.median(report.delays_s) * 1000
        report.delay_ms_p95 = float(np.percentile(report.delays_s, 95)) * 1000
    report.ok = not report.error and report.first_frame_ms is not None and report.first_audio_ms is not None
    return report


async def _measure(receiver: Room, pattern: PatternTrack, report: Report, began: float, duration_s: float) -> None:
    readers: dict[str, asyncio.Task[None]] = {}
    deadline = began + duration_s
    try:
        while time.monotonic() < deadline:
            for track in receiver.tracks.values():
                if track.id not in readers:
                    readers[track.id] = asyncio.create_task(_read(track, pattern, report, began))
            await asyncio.sleep(0.01)
        report.loss = await _loss(receiver)
    finally:
        for reader in readers.values():
            reader.cancel()
        await asyncio.gather(*readers.values(), return_exceptions=True)


async def _read(track: RemoteTrack, pattern: PatternTrack, report: Report, began: float) -> None:
    try:
        if track.media.kind == "audio":
            await _read_audio(track.media, report, began)
        else:
            await _read_video(track.media, pattern, report, began)
    except MediaStreamError:
        return  # the track ended


async def _read_audio(media: MediaStreamTrack, report: Report, began: float) -> None:
    while True:
        frame = await media.recv()
        if not isinstance(frame, AudioFrame):
            continue
        # Interleaved stereo: every second sample is one channel.
        samples = frame.to_ndarray().astype(np.float64).reshape(-1)[:: len(frame.layout.channels)] / 32_768
        if report.first_audio_ms is None and abs(frequency_of(samples) - TONE_HZ) < 60:
            report.first_audio_ms = (time.monotonic() - began) * 1000


async def _read_video(media: MediaStreamTrack, pattern: PatternTrack, report: Report, began: float) -> None:
    previous: float | None = None
    while True:
        frame = await media.recv()
        seen = read_frame(frame) if isinstance(frame, VideoFrame) else None
        now = time.monotonic()
        if seen is None or seen[0] != pattern.number:
            continue
        if report.first_frame_ms is None:
            report.first_frame_ms = (now - began) * 1000
        report.frames += 1
        report.freezes += previous is not None and now - previous > FREEZE_S
        previous = now
        if seen[1] in pattern.sent_at:
            report.delays_s.append(now - pattern.sent_at[seen[1]])


async def _loss(receiver: Room) -> float:
    stats = await receiver.transport.pc.getStats()
    inbound = [item for item in stats.values() if item.type == "inbound-rtp"]
    received = sum(item.packetsReceived for item in inbound)
    lost = sum(max(item.packetsLost, 0) for item in inbound)
    return lost / (received + lost) if received + lost else 0.0


async def _run(arguments: argparse.Namespace) -> bool:
    tokens = (arguments.token, arguments.peer_token)
    if not all(tokens):
        made = [
            await demo_token(arguments.url, arguments.room, f"probe-{side}-{secrets.token_hex(3)}") for side in "ab"
        ]
        tokens = (made[0], made[1])
    report = await probe(arguments.url, arguments.room, tokens, arguments.duration)
    print(report.as_json(), flush=True)
    return report.ok


def main() -> None:
    """Entry point; exit code 0 if media flowed, 1 if not."""
    parser = argparse.ArgumentParser(prog="mrtc-probe", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="base URL of the suite")
    parser.add_argument("--room", default=f"probe-{secrets.token_hex(4)}", help="room to meet in (default: a new one)")
    parser.add_argument("--token", default=os.environ.get("MRTC_PROBE_TOKEN", ""), help="token of the sender")
    parser.add_argument(
        "--peer-token", default=os.environ.get("MRTC_PROBE_PEER_TOKEN", ""), help="token of the receiver"
    )
    parser.add_argument("--duration", type=float, default=5.0, help="seconds to receive")
    try:
        sys.exit(0 if asyncio.run(_run(parser.parse_args())) else 1)
    except httpx.HTTPError as error:
        sys.exit(f"mrtc-probe: no token and the suite gives none ({error}); pass --token and --peer-token")


if __name__ == "__main__":
    main()
