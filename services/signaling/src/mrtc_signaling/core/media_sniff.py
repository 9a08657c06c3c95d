"""Tells media files by their first bytes; what a client says a file is counts for nothing."""

from __future__ import annotations

SNIFF_BYTES = 512
_TS_PACKET = 188


def sniff_media_type(head: bytes) -> str | None:
    """The media type of a file that begins so; None: no media file that can be played."""
    if head[4:8] in (b"ftyp", b"moov", b"styp"):
        return "video/quicktime" if head[8:12] == b"qt  " else "video/mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3"):  # EBML (RFC 8794)
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    if head.startswith(b"OggS"):
        return "audio/ogg"
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        return "audio/wav"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "video/x-msvideo"
    if head.startswith(b"fLaC"):
        return "audio/flac"
    if head.startswith(b"FLV\x01"):
        return "video/x-flv"
    if len(head) > 2 * _TS_PACKET and all(head[i] == 0x47 for i in (0, _TS_PACKET, 2 * _TS_PACKET)):
        return "video/mp2t"
    if head.startswith(b"ID3"):
        return "audio/mpeg"
    return _frame_sync(head)


def _frame_sync(head: bytes) -> str | None:
    """ADTS (AAC) and MPEG audio begin with eleven or twelve set bits."""
    if len(head) < 4 or head[0] != 0xFF:
        return None
    if head[1] & 0xF6 == 0xF0:
        return "audio/aac"
    has_layer, has_bitrate = head[1] & 0x06, head[2] & 0xF0 not in (0x00, 0xF0)
    return "audio/mpeg" if head[1] & 0xE0 == 0xE0 and has_layer and has_bitrate else None
