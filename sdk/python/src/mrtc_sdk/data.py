"""Data channels: topics on the one peer connection, framed as docs/protocol.md says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiortc import RTCDataChannel, RTCPeerConnection

from mrtc_sdk.errors import MrtcError

PROTOCOL = "mrtc.data.v1"
MAX_PAYLOAD = 64_000
MAX_LOSSY_PAYLOAD = 15_000
MAX_TOPIC_BYTES = 64

_TEXT, _GAP = 1, 2
# Bytes that wait in one channel before `publish` waits too.
_MAX_BUFFERED = 1024 * 1024
_OPEN_TIMEOUT_S = 10.0
# A channel agreed by number needs no word with the server: it is there so that the first offer has the line.
_FIRST_CHANNEL = 1022


@dataclass(frozen=True)
class DataReceived:
    """A message that came on a data channel.

    Attributes:
        topic: what it is about.
        sender: identity of who sent it, as the server knows it.
        payload: text or bytes, as it was sent.
        is_reliable: as the sender chose.
        has_gap: messages of this topic before this one were given up, since this client took them too slowly.
    """

    topic: str
    sender: str
    payload: bytes | str
    is_reliable: bool
    has_gap: bool = False


class DataChannels:
    """The topics of one peer connection. Those to send on are opened when they are first used.

    Args:
        on_message: called with each message that comes.
    """

    def __init__(self, pc: RTCPeerConnection, on_message: Callable[[DataReceived], None]) -> None:
        self._pc = pc
        self._on_message = on_message
        self._outbound: dict[tuple[str, bool], RTCDataChannel] = {}
        self._first = pc.createDataChannel("", negotiated=True, id=_FIRST_CHANNEL)
        pc.on("datachannel", self._take)

    @property
    def is_open(self) -> bool:
        """True once messages can come."""
        return bool(self._first.readyState == "open")

    async def publish(self, payload: bytes | str, topic: str, *, is_reliable: bool, to: Sequence[str]) -> None:
        """Sends; waits while the server holds this client back.

        Raises:
            ValueError: topic, payload or addressees are out of bounds.
            MrtcError: the channel did not open, or was closed by the server.
        """
        message = frame(payload, to)
        check(topic, payload, is_reliable)
        channel = self._channel(topic, is_reliable)
        if channel.readyState == "connecting":
            try:
                async with asyncio.timeout(_OPEN_TIMEOUT_S):
                    await _either(channel, "open", "close")
            except TimeoutError:
                raise MrtcError(f"the data channel {topic!r} did not open") from None
        if channel.readyState == "open" and channel.bufferedAmount > _MAX_BUFFERED:
            channel.bufferedAmountLowThreshold = _MAX_BUFFERED // 2
            await _either(channel, "bufferedamountlow", "close")
        if channel.readyState != "open":
            self._outbound.pop((topic, is_reliable), None)
            raise MrtcError(f"the data channel {topic!r} is closed")
        channel.send(message)

    def _channel(self, topic: str, is_reliable: bool) -> RTCDataChannel:
        channel = self._outbound.get((topic, is_reliable))
        if channel is None or channel.readyState in ("closing", "closed"):
            channel = self._pc.createDataChannel(
                topic, ordered=is_reliable, maxRetransmits=None if is_reliable else 0, protocol=PROTOCOL
            )
            self._outbound[topic, is_reliable] = channel
        return channel

    def _take(self, channel: RTCDataChannel) -> None:
        if channel.protocol != PROTOCOL:
            return
        is_reliable = channel.maxRetransmits is None and channel.maxPacketLifeTime is None

        def take(message: bytes | str) -> None:
            if isinstance(message, bytes) and (received := parse(message, channel.label, is_reliable)) is not None:
                self._on_message(received)

        channel.on("message", take)


async def _either(channel: RTCDataChannel, *events: str) -> None:
    happened = asyncio.Event()
    for event in events:
        channel.once(event, happened.set)
    await happened.wait()


def check(topic: str, payload: bytes | str, is_reliable: bool) -> None:
    """Raises ValueError if the server would not take it."""
    if not 1 <= len(topic) <= MAX_TOPIC_BYTES or not all("!" <= character <= "~" for character in topic):
        raise ValueError(f"a topic has 1 to {MAX_TOPIC_BYTES} visible ASCII characters")
    limit = MAX_PAYLOAD if is_reliable else MAX_LOSSY_PAYLOAD
    if len(payload.encode() if isinstance(payload, str) else payload) > limit:
        raise ValueError(f"a data message has at most {limit} bytes")


def frame(payload: bytes | str, to: Sequence[str]) -> bytes:
    """A message for the server. Raises ValueError."""
    if len(to) > 100:
        raise ValueError("a data message has at most 100 addressees")
    head = bytearray([_TEXT if isinstance(payload, str) else 0, len(to)])
    for identity in to:
        name = identity.encode()
        if not 1 <= len(name) <= 128:
            raise ValueError("an identity has 1 to 128 bytes")
        head += bytes([len(name)]) + name
    return bytes(head) + (payload.encode() if isinstance(payload, str) else payload)


def parse(message: bytes, topic: str, is_reliable: bool) -> DataReceived | None:
    """A message of the server; None if it is not one."""
    if len(message) < 3 or message[1] != 1 or len(message) < 3 + message[2]:
        return None
    flags, end = message[0], 3 + message[2]
    try:
        sender = message[3:end].decode()
        payload = message[end:].decode() if flags & _TEXT else message[end:]
    except UnicodeDecodeError:
        return None
    return DataReceived(topic, sender, payload, is_reliable, bool(flags & _GAP))
