"""Reads from a key frame what a file's header must say about it: changes of it need a new file."""

from __future__ import annotations


def picture_format(codec: str, keyframe: bytes) -> bytes:
    """A value that is equal for key frames that one file header can describe, and differs otherwise.

    H.264: its sequence parameter sets. VP8, VP9: picture size and profile. AV1: its sequence header. Empty if the
    key frame does not hold it.
    """
    reader = _READERS.get(codec)
    return reader(keyframe) if reader else b""


def split_annexb(data: bytes) -> list[bytes]:
    """NAL units of an Annex B byte stream (H.264 annex B.1), without start codes."""
    units: list[bytes] = []
    start = data.find(b"\x00\x00\x01")
    while start >= 0:
        start += 3
        end = data.find(b"\x00\x00\x01", start)
        unit = data[start : end if end >= 0 else len(data)]
        unit = unit.rstrip(b"\x00") if end >= 0 else unit
        if unit:
            units.append(unit)
        start = end
    return units


def _h264(keyframe: bytes) -> bytes:
    return b"".join(sorted({unit for unit in split_annexb(keyframe) if unit[0] & 0x1F == 7}))


def _vp8(keyframe: bytes) -> bytes:
    """RFC 6386 section 9.1: frame tag, start code 9d 01 2a, then 14 bits each of width and height with scale."""
    if len(keyframe) < 10 or keyframe[0] & 1 or keyframe[3:6] != b"\x9d\x01\x2a":
        return b""
    return keyframe[6:10]


class _Bits:
    """Most significant bit first; reads zeros past the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = len(data) * 8

    def read(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            return 0
        return (self._value >> self._left) & ((1 << count) - 1)


def _vp9(keyframe: bytes) -> bytes:
    """VP9 bitstream section 6.2, uncompressed header of a key frame."""
    bits = _Bits(keyframe[:16])
    if bits.read(2) != 2:
        return b""
    profile = bits.read(1) | bits.read(1) << 1
    if profile == 3:
        bits.read(1)
    if bits.read(1) or bits.read(1):  # show_existing_frame, not a key frame
        return b""
    bits.read(2)
    if bits.read(24) != 0x498342:
        return b""
    if profile >= 2:
        bits.read(1)
    if bits.read(3) == 7:  # RGB
        bits.read(1 if profile in (1, 3) else 0)
    else:
        bits.read(4 if profile in (1, 3) else 1)
    return b"%d %d %d" % (profile, bits.read(16) + 1, bits.read(16) + 1)


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """AV1 section 4.10.5: (value, position after it). Raises ValueError."""
    value = 0
    for i in range(8):
        if at + i >= len(data):
            raise ValueError("truncated leb128")
        byte = data[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if not byte & 0x80:
            return value, at + i + 1
    raise ValueError("leb128 is too long")


def _av1(keyframe: bytes) -> bytes:
    """AV1 section 5.3: OBUs with size fields; the sequence header is type 1."""
    at = 0
    try:
        while at < len(keyframe):
            header = keyframe[at]
            has_size = header & 2
            at += 2 if header & 4 else 1
            size, at = _leb128(keyframe, at) if has_size else (len(keyframe) - at, at)
            if header >> 3 & 0xF == 1:
                return keyframe[at : at + size]
            at += size
    except ValueError:
        pass
    return b""


_READERS = {"h264": _h264, "vp8": _vp8, "vp9": _vp9, "av1": _av1}
