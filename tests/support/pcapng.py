"""Reads pcapng files, as far as tests need it; written after the draft, not after our writer."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Packet:
    """A UDP packet of a capture.

    Attributes:
        at_us: Unix time in microseconds.
        data: its payload, as far as it was captured.
        length: length of the payload on the wire.
    """

    at_us: int
    source: tuple[str, int]
    destination: tuple[str, int]
    data: bytes
    length: int

    @property
    def is_rtcp(self) -> bool:
        """By RFC 5761 section 4."""
        return 192 <= self.data[1] <= 223


def blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each block; fails at one that is not whole."""
    at = 0
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert length % 4 == 0
        assert at + length <= len(data)
        assert struct.unpack_from("<I", data, at + length - 4) == (length,)
        yield kind, data[at + 8 : at + length - 4]
        at += length


def read(path: Path) -> tuple[list[Packet], int]:
    """All packets, and how many the writer says it dropped. Fails if the file is not complete."""
    packets: list[Packet] = []
    dropped: int | None = None
    for number, (kind, body) in enumerate(blocks(path.read_bytes())):
        match kind:
            case 0x0A0D0D0A:
                assert number == 0
                assert struct.unpack_from("<IHH", body) == (0x1A2B3C4D, 1, 0)
            case 1:
                assert struct.unpack_from("<H", body) == (101,)
            case 6:
                packets.append(_packet(body))
            case 5:
                options = dict(_options(body[12:]))
                dropped = int.from_bytes(options[5], "little")
    assert dropped is not None, "the file has no end"
    return packets, dropped


def _options(body: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(body):
        code, length = struct.unpack_from("<HH", body, at)
        if code == 0:
            return
        yield code, body[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4


def _packet(body: bytes) -> Packet:
    _, high, low, captured, original = struct.unpack_from("<IIIII", body)
    ip = body[20 : 20 + captured]
    assert ip[0] == 0x45, "IPv4 without options"
    assert ip[9] == 17, "UDP"
    assert struct.unpack_from(">H", ip, 2) == (original,)
    total = sum(struct.unpack_from(">10H", ip))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF, "the header's checksum is right"
    source, destination, udp_length = struct.unpack_from(">HHH", ip, 20)
    assert udp_length == original - 20
    address = [".".join(str(byte) for byte in ip[at : at + 4]) for at in (12, 16)]
    return Packet(high << 32 | low, (address[0], source), (address[1], destination), ip[28:], original - 28)
