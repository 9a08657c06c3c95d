"""What can go wrong with a vod. `VodError` is the root; the message goes into the vod's record, for people."""

from __future__ import annotations

from typing import ClassVar


class VodError(Exception):
    """Root of the player's errors."""

    code: ClassVar[str] = "vod_error"


class BadMediaError(VodError):
    """The file is no media file, is damaged, or holds nothing that can be played."""

    code = "bad_media"


class PlayerError(VodError):
    """The playing process ended before the file did."""

    code = "player_died"
