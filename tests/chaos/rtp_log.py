"""What a Python client got of each picture, number by number, for the cause of pictures that stood still.

`CHAOS_RTP_LOG=FOLDER python -m tests.chaos …` has each client keep the numbers of its last RTP packets, and write
them to a file when a track showed nothing for `STILL_S`: which numbers lacked, when they were asked for, when they
came; and when the client's own loop stood still.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import weakref
from collections import deque
from pathlib import Path
from typing import Any

from aiortc.rtcrtpreceiver import RTCRtpReceiver

STILL_S = 3.0
# Two minutes of a small picture.
_KEPT = 4096
_MAX_FILES = 50
# The loop is held up if it comes so much later than it was to.
_STALL_S = 0.2
_LOOK_S = 0.05
# A number that came so long after its successors was missed meanwhile.
_LATE_S = 1.0

# (seconds on the monotonic clock, what, number or numbers, RTP timestamp, bytes)
Event = tuple[float, str, Any, int, int]

_logs: weakref.WeakKeyDictionary[RTCRtpReceiver, deque[Event]] = weakref.WeakKeyDictionary()
_stalls: deque[tuple[float, float]] = deque(maxlen=256)
_folder: Path | None = None
_files = 0


def install() -> None:
    """Begins to listen, if it is asked for; a client's receivers are seen from the first packet on."""
    global _folder
    if "CHAOS_RTP_LOG" not in os.environ:
        return
    _folder = Path(os.environ["CHAOS_RTP_LOG"])
    _folder.mkdir(parents=True, exist_ok=True)
    receive, nack, pli = (
        RTCRtpReceiver._handle_rtp_packet,
        RTCRtpReceiver._send_rtcp_nack,
        RTCRtpReceiver._send_rtcp_pli,
    )

    async def received(self: RTCRtpReceiver, packet: Any, arrival_time_ms: int) -> None:
        rtx = getattr(self, "_RTCRtpReceiver__rtx_ssrc")  # noqa: B009
        is_again, size = packet.ssrc in rtx, len(packet.payload)
        number = int.from_bytes(packet.payload[:2], "big") if is_again and size >= 2 else packet.sequence_number
        what = ("again" if size >= 2 else "probe") if is_again else "media"
        _note(self, what, number, packet.timestamp, size)
        await receive(self, packet, arrival_time_ms)

    async def asked(self: RTCRtpReceiver, media_ssrc: int, lost: list[int]) -> None:
        _note(self, "nack", list(lost), 0, 0)
        await nack(self, media_ssrc, lost)

    async def wanted_keyframe(self: RTCRtpReceiver, media_ssrc: int) -> None:
        _note(self, "pli", 0, 0, 0)
        await pli(self, media_ssrc)

    RTCRtpReceiver._handle_rtp_packet = received
    RTCRtpReceiver._send_rtcp_nack = asked
    RTCRtpReceiver._send_rtcp_pli = wanted_keyframe


async def watch_loop() -> None:
    """Notes when the event loop stood still; for a task that runs as long as the client."""
    while _folder is not None:
        before = time.monotonic()
        await asyncio.sleep(_LOOK_S)
        after = time.monotonic()
        if after - before > _LOOK_S + _STALL_S:
            _stalls.append((after, after - before))


def stood_still(identity: str, track_id: str, seconds: float) -> None:
    """A track shows something again after so long; all that is known of all tracks is written."""
    global _files
    if _folder is None or _files == _MAX_FILES:
        return
    _files += 1
    now = time.monotonic()
    streams = [
        {"holes": holes(list(log)), "events": [(round(at - now, 3), *rest) for at, *rest in log]}
        for log in _logs.values()
        if log
    ]
    stalls = [(round(at - now, 2), round(lasted, 2)) for at, lasted in _stalls]
    found = {
        "identity": identity,
        "track": track_id,
        "still_s": round(seconds, 2),
        "stalls": stalls,
        "streams": streams,
    }
    (_folder / f"{identity}-{os.getpid()}-{_files}.json").write_text(json.dumps(found))


def _note(receiver: RTCRtpReceiver, what: str, numbers: Any, timestamp: int, size: int) -> None:
    if receiver.track.kind == "video":
        log = _logs.setdefault(receiver, deque(maxlen=_KEPT))
        log.append((time.monotonic(), what, numbers, timestamp, size))


def holes(log: list[Event]) -> list[dict[str, Any]]:
    """Numbers of one stream that lack or came late, in order.

    Returns: for each the number, and the seconds from the log's end back to when its successor came (`missed_s`), when
    it was asked for (`asked_s`) and when it came (`came_s`).
    """
    came: dict[int, float] = {}
    asked: dict[int, list[float]] = {}
    highest = -1
    end = log[-1][0]
    for at, what, numbers, _, _ in log:
        if what == "nack":
            for number in numbers:
                asked.setdefault(_unwrap(number, highest), []).append(at)
        elif what in ("media", "again"):
            number = _unwrap(numbers, highest)
            came.setdefault(number, at)
            highest = max(highest, number)
    known = sorted(came)
    found = []
    missed_at = end
    for number in range(highest, known[0], -1) if known else ():
        at = came.get(number)
        if at is None or at - missed_at > _LATE_S:
            found.append(
                {
                    "number": number & 0xFFFF,
                    "missed_s": round(end - missed_at, 2),
                    "asked_s": [round(end - when, 2) for when in asked.get(number, [])],
                    "came_s": None if at is None else round(end - at, 2),
                }
            )
        if at is not None:
            missed_at = min(missed_at, at)
    return found[::-1]


def _unwrap(number: int, highest: int) -> int:
    if highest < 0:
        return number + 0x10000
    return highest + ((number - highest + 0x8000) & 0xFFFF) - 0x8000
