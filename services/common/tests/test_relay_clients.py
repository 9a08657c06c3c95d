"""Relays that this node opens: one to a node, and one more for each further worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from mrtc.node.v1.master_service_pb2 import Node
from mrtc_common.errors import UnavailableError
from mrtc_common.grpc import Channels
from mrtc_common.node import NodeDirectory
from mrtc_common.relay_clients import RelayClients
from mrtc_common.relay_types import RelayEngine


class Directory:
    """Knows nodes by prefix."""

    async def find(self, node_id: str) -> Node | None:
        return Node(id=node_id, grpc_address="127.0.0.1:1") if node_id.startswith("n") else None


def relay_address(relay_id: str) -> str:
    return f"127.0.0.1:{1 + sum(relay_id.encode()) % 3}"


@pytest.fixture
def clients() -> RelayClients:
    engine = cast(RelayEngine, SimpleNamespace(relay_address=relay_address))
    channels: Any = SimpleNamespace(get=lambda address: _Channel())
    return RelayClients(engine, cast(Channels, channels), cast(NodeDirectory, Directory()), "own")


class _Channel:
    def __getattr__(self, name: str) -> Any:
        return lambda *args, **values: None


async def test_a_node_has_one_relay_and_one_more_for_each_further_worker(clients: RelayClients) -> None:
    usual = await clients.get("n1")
    assert (usual.lane, usual.own_address) == (0, relay_address(usual.relay_id))
    assert await clients.get("n1") is usual
    for address in [f"127.0.0.1:{port}" for port in (1, 2, 3)]:
        client = await clients.get("n1", address)
        assert client.own_address == relay_address(client.relay_id) == address
        assert await clients.get("n1", address) is client
    assert sorted(client.lane for client in clients) == [0, 1, 2]
    assert await clients.get("n1") is usual
    other = await clients.get("n2", "127.0.0.1:2")
    assert (other.lane, other.own_address) == (0, "127.0.0.1:2")
    assert clients.find(other.relay_id) is other
    clients.remove(usual)
    assert [client.node_id for client in clients] == ["n1", "n1", "n2"]


async def test_a_relay_needs_a_node_that_lives_and_a_worker_that_is_there(clients: RelayClients) -> None:
    with pytest.raises(UnavailableError):
        await clients.get("gone")
    with pytest.raises(UnavailableError):
        await clients.get("n1", "127.0.0.1:9")
