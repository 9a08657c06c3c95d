"""The relays that this node opened: one to each other node that it takes from, and one more for each further worker."""

from __future__ import annotations

from collections.abc import Iterator

from .engine_errors import engine_errors
from .errors import UnavailableError
from .grpc import Channels
from .ids import new_id
from .node import NodeDirectory
from .relay_client import RelayClient
from .relay_types import RelayEngine

_MAX_TRIES = 10_000


class RelayClients:
    """Makes them at first use.

    A relay's worker follows from its id, and a track stays with its worker when it comes from another node. So the
    relay that it comes over next must be of the same worker: if the usual one to that node is not, there is one more.
    """

    def __init__(self, engine: RelayEngine, channels: Channels, directory: NodeDirectory, node_id: str) -> None:
        self._engine, self._channels, self._directory, self._node_id = engine, channels, directory, node_id
        self._all: list[RelayClient] = []

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[RelayClient]:
        """Over a copy: relays may come and go meanwhile."""
        return iter(list(self._all))

    def of_node(self, node_id: str) -> list[RelayClient]:
        """All to one node, the usual one first."""
        return [client for client in self._all if client.node_id == node_id]

    def find(self, relay_id: str) -> RelayClient | None:
        """By the relay's id."""
        return next((client for client in self._all if client.relay_id == relay_id), None)

    async def get(self, node_id: str, address: str = "") -> RelayClient:
        """The relay to a node; if `address` is given, the one that this node serves there. Raises UnavailableError."""
        known = self._match(node_id, address)
        if known is not None:
            return known
        node = await self._directory.find(node_id)
        if node is None:
            raise UnavailableError(f"node {node_id} is not alive")
        known = self._match(node_id, address)
        if known is None:
            lane = max((client.lane for client in self.of_node(node_id)), default=-1) + 1
            known = RelayClient(
                self._engine,
                self._channels,
                own_node_id=self._node_id,
                node_id=node_id,
                address=node.grpc_address,
                relay_id=self._new_relay_id(address),
                lane=lane,
            )
            self._all.append(known)
        return known

    def remove(self, client: RelayClient) -> None:
        """It is closed."""
        if client in self._all:
            self._all.remove(client)

    def clear(self) -> None:
        """All are."""
        self._all.clear()

    def _match(self, node_id: str, address: str) -> RelayClient | None:
        fitting = [client for client in self.of_node(node_id) if not address or client.own_address == address]
        return fitting[0] if fitting else None

    def _new_relay_id(self, address: str) -> str:
        for _ in range(_MAX_TRIES):
            relay_id = new_id("rl")
            with engine_errors():
                if not address or self._engine.relay_address(relay_id) == address:
                    return relay_id
        raise UnavailableError(f"no worker serves relays at {address}")
