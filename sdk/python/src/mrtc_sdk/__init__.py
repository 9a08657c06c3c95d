"""Python client of the MRTC suite, on aiortc: `Room.connect(url, token)` and the probe."""

from mrtc_sdk.errors import ConnectionLost, MrtcError, RequestFailed
from mrtc_sdk.room import RemoteTrack, Room, RoomOptions

__all__ = ["ConnectionLost", "MrtcError", "RemoteTrack", "RequestFailed", "Room", "RoomOptions"]
