"""Makes the ids that the suite gives: opaque, unique, safe as a token of a NATS subject, a file name and a URL part."""

from __future__ import annotations

import re
import secrets

_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # 32 letters and digits that are not mistaken for each other
_ID_LENGTH = 20  # 100 random bits
_ID_RE = re.compile(r"[A-Za-z0-9_-]{1,64}")


def new_id(prefix: str) -> str:
    """A fresh id, for example `pa_k3v9…`; the prefix tells people what it names."""
    return f"{prefix}_" + "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))


def is_id(text: str) -> bool:
    """True if the text can be an id of ours (1 to 64 of `A-Za-z0-9_-`)."""
    return _ID_RE.fullmatch(text) is not None


def media_track_id(track_id: str, generation: int) -> str:
    """What media nodes call a track of a publisher that moved `generation` times; it is at two nodes for a moment."""
    return f"{track_id}-{generation}" if generation else track_id


def track_of_media(media_id: str) -> str:
    """The track that a media node means."""
    return media_id.partition("-")[0]
