"""From which nodes the data messages of which rooms come: each node sends its own to all others, and passes none on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from .errors import MrtcError
from .log import get_logger
from .relay_client import RelayClient
from .relay_clients import RelayClients

_log = get_logger(__name__)


class RelayData:
    """Keeps the relays in step with what is wanted."""

    def __init__(self, clients: RelayClients, node_id: str) -> None:
        self._clients, self._node_id = clients, node_id
        self._wanted: dict[str, set[str]] = {}

    async def set(self, room_key: str, node_ids: Iterable[str]) -> None:
        """Has a room's data messages come from exactly these nodes."""
        wanted = set(node_ids) - {self._node_id}
        self._wanted[room_key] = wanted
        if not wanted:
            del self._wanted[room_key]
        await self._settle()

    async def settle(self) -> None:
        """Tries again what failed; call about once a second."""
        if self._wanted or any(not client.is_data_told for client in self._clients):
            await self._settle()

    async def _settle(self) -> None:
        for node_id in {node for nodes in self._wanted.values() for node in nodes}:
            with contextlib.suppress(MrtcError):
                await self._clients.get(node_id)
        for client in self._clients:
            is_usual = client is self._clients.of_node(client.node_id)[0]
            rooms = {room for room, nodes in self._wanted.items() if is_usual and client.node_id in nodes}
            for room in rooms | client.data.keys():
                client.want_data(room, room in rooms)
        await asyncio.gather(*(self._tell(client) for client in self._clients))

    async def _tell(self, client: RelayClient) -> None:
        if client.is_data_told:
            return
        async with client.lock:
            try:
                if not client.is_data_told:
                    await client.tell_data()
            except MrtcError as error:
                _log.debug("data does not flow yet", to=client.node_id, error=error.message)
