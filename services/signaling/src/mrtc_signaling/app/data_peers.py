"""Tells a session's node which other nodes have people of the room, so that data messages cross between them."""

from __future__ import annotations

import asyncio

from mrtc_common.errors import TransportNotFoundError, UnavailableError

from mrtc_signaling.core.room_view import RoomView

from .transport_leg import TransportLeg

# A node may be away for a moment; later the next change of the room is the next try.
_RETRY_DELAYS_S = (0.5, 2.0, 5.0)


class DataPeers:
    """What the node of one session's transport was told. A transport without data channels, or alone, costs no call."""

    def __init__(self, view: RoomView, leg: TransportLeg) -> None:
        self._view, self._leg = view, leg
        self._told: tuple[str, tuple[str, ...]] = ("", ())
        self._lock = asyncio.Lock()

    async def tell(self) -> None:
        """Brings the node up to date. Raises MrtcError of the node."""
        async with self._lock:
            for delay in _RETRY_DELAYS_S:
                try:
                    await self._tell_now()
                except UnavailableError:
                    await asyncio.sleep(delay)
                else:
                    return
            await self._tell_now()

    async def _tell_now(self) -> None:
        if not (self._leg.is_open and self._leg.has_data):
            return
        transport_id = self._leg.transport_id
        peers = tuple(sorted(set(self._view.media_nodes()) - {self._leg.node_id}))
        told_transport, told_peers = self._told
        if peers == (told_peers if told_transport == transport_id else ()):
            return
        node = await self._leg.node()
        try:
            await node.set_data_peers(transport_id, peers)
        except TransportNotFoundError:
            # It has ended meanwhile, which is told elsewhere.
            return
        self._told = (transport_id, peers)
