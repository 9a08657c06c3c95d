"""The one peer connection of a client: publish m-lines and slots, on aiortc."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Literal

from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.rtcconfiguration import RTCIceTransportPolicy
from aiortc.rtcrtpsender import RTCRtpSender

from mrtc_sdk.data import DataChannels, DataReceived

Kind = Literal["audio", "video"]

# Some 2,000 small packets: seconds of a call. The usual 208 KiB hold less than one, and what is lost in all tracks at
# once (a loop that closes a peer connection on a busy machine) is more than aiortc repairs: it asks for a packet once.
RECEIVE_BUFFER_BYTES = 2 << 20


class Transport:
    """A peer connection whose m-lines are negotiated once; tracks come and go without renegotiation.

    Args:
        audio_slots: receive m-lines of kind audio.
        video_slots: receive m-lines of kind video.
        on_data: takes what comes on data channels; None: they are not offered.
        codecs: lower-case names of the video codecs to offer, best first; empty: all that aiortc has.
        ice_servers: STUN and TURN servers.
        is_relay_only: use TURN only.
    """

    def __init__(
        self,
        audio_slots: int,
        video_slots: int,
        codecs: tuple[str, ...] = (),
        ice_servers: Sequence[RTCIceServer] = (),
        *,
        is_relay_only: bool = False,
        on_data: Callable[[DataReceived], None] | None = None,
    ) -> None:
        configuration = RTCConfiguration(
            iceServers=list(ice_servers),
            iceTransportPolicy=RTCIceTransportPolicy.RELAY if is_relay_only else RTCIceTransportPolicy.ALL,
            bundlePolicy=RTCBundlePolicy.MAX_BUNDLE,
        )
        self.pc = RTCPeerConnection(configuration)
        self._codecs = codecs
        self._closing: asyncio.Future[None] | None = None
        self._outbound: dict[Kind, list[RTCRtpTransceiver]] = {"audio": [], "video": []}
        for kind in ("audio", "video"):
            self._outbound[kind].append(self._add(kind, "sendonly"))
        self.add_slots(audio_slots, video_slots)
        self.data = DataChannels(self.pc, on_data) if on_data is not None else None

    def _add(self, kind: Kind, direction: str) -> RTCRtpTransceiver:
        transceiver = self.pc.addTransceiver(kind, direction=direction)
        if kind == "video" and self._codecs:
            offered = RTCRtpSender.getCapabilities("video").codecs
            names = [*self._codecs, "rtx"]
            chosen = [c for name in names for c in offered if c.mimeType.lower() == f"video/{name}"]
            transceiver.setCodecPreferences(chosen)
        return transceiver

    def add_slots(self, audio: int, video: int) -> None:
        """Adds receive m-lines; they exist after the next offer and answer."""
        for _ in range(audio):
            self._add("audio", "recvonly")
        for _ in range(video):
            self._add("video", "recvonly")

    def free_line(self, kind: Kind) -> RTCRtpTransceiver | None:
        """A negotiated publish m-line that carries nothing."""
        return next((t for t in self._outbound[kind] if t.mid is not None and t.sender.track is None), None)

    def add_line(self, kind: Kind) -> None:
        """Adds a publish m-line; it exists after the next offer and answer."""
        self._outbound[kind].append(self._add(kind, "sendonly"))

    def line_of(self, track: MediaStreamTrack) -> str | None:
        """The m-line that carries an own track."""
        for transceivers in self._outbound.values():
            for transceiver in transceivers:
                if transceiver.sender.track is track:
                    return str(transceiver.mid)
        return None

    def clear(self, track: MediaStreamTrack) -> None:
        """Frees the m-line of an own track."""
        for transceivers in self._outbound.values():
            for transceiver in transceivers:
                if transceiver.sender.track is track:
                    transceiver.sender.replaceTrack(None)

    def received(self, mid: str) -> MediaStreamTrack | None:
        """What comes in on a slot."""
        for transceiver in self.pc.getTransceivers():
            if transceiver.mid == mid:
                track: MediaStreamTrack = transceiver.receiver.track
                return track
        return None

    async def offer(self) -> str:
        """A new offer. aiortc gathers its candidates first, which takes some milliseconds without a STUN server."""
        await self.pc.setLocalDescription(await self.pc.createOffer())
        _widen_buffers(self.pc)
        return str(self.pc.localDescription.sdp)

    async def accept(self, answer: str) -> None:
        """Takes the server's answer; ICE and DTLS start."""
        await self.pc.setRemoteDescription(RTCSessionDescription(sdp=repeat_candidates(answer), type="answer"))

    async def connected(self, timeout_s: float) -> bool:
        """Waits until ICE and DTLS are up; False if that takes too long or fails."""
        changed = asyncio.Event()
        self.pc.on("connectionstatechange", changed.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.pc.connectionState not in ("connected", "failed", "closed"):
                    changed.clear()
                    await changed.wait()
        return bool(self.pc.connectionState == "connected")

    async def aclose(self) -> None:
        """Closes the peer connection, and ends the copies of tracks that it sent: nobody would empty their queues."""
        # aiortc never ends a second close of a connection whose first close was cancelled.
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        sent = [transceiver.sender.track for ones in self._outbound.values() for transceiver in ones]
        await self.pc.close()
        for track in sent:
            if track is not None:
                track.stop()


def _widen_buffers(pc: RTCPeerConnection) -> None:
    """Lets the kernel hold what comes while the event loop stands still; aioice has no option for it."""
    transports = {transceiver.receiver.transport.transport for transceiver in pc.getTransceivers()}
    for ice in transports:
        for protocol in getattr(getattr(ice, "_connection", None), "_protocols", ()):
            datagrams = getattr(protocol, "transport", None)
            udp = datagrams.get_extra_info("socket") if datagrams is not None else None
            if udp is not None:
                udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)


def repeat_candidates(sdp: str) -> str:
    """The SDP with the candidates of the first bundled m-line on the others too.

    RFC 8843 section 7.3 puts them on the first line only; aiortc with max-bundle takes those of the last line.
    """
    head, *lines = sdp.split("\r\nm=")
    candidates = [a for a in lines[0].split("\r\n") if a.startswith(("a=candidate:", "a=end-of-candidates"))]
    repeated = [line.rstrip("\r\n") + "".join(f"\r\n{a}" for a in candidates) for line in lines[1:]]
    return "\r\nm=".join([head, lines[0].rstrip("\r\n"), *repeated]) + "\r\n"
