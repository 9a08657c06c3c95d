"""Nodes register, are found, and are not lost with NATS."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from mrtc.node.v1.master_service_pb2 import NODE_KIND_MCU, NODE_STATE_DRAINING, Node, NodeLoad
from mrtc_common import subjects, tables
from mrtc_common.nats import NatsLink
from mrtc_common.nats_schema import bucket_subject
from mrtc_common.node import NodeAgent, NodeDirectory, new_node_id
from mrtc_common.testing import NatsServer, wait_until

pytestmark = pytest.mark.integration


def _agent(link: NatsLink) -> NodeAgent:
    return NodeAgent(
        link,
        node_id=new_node_id("mcu"),
        kind=NODE_KIND_MCU,
        grpc_address="127.0.0.1:1",
        load=lambda: NodeLoad(load=0.25),
    )


@pytest_asyncio.fixture
async def directory(nats_link: NatsLink) -> AsyncIterator[NodeDirectory]:
    directory = NodeDirectory(nats_link)
    await directory.start()
    yield directory
    await directory.aclose()


async def test_a_node_is_in_the_registry_until_it_leaves(nats_link: NatsLink, directory: NodeDirectory) -> None:
    gone: list[str] = []
    directory.on_gone(lambda node: gone.append(node.id))
    agent = _agent(nats_link)
    await agent.start()
    await wait_until(lambda: agent.node_id in directory.nodes)
    assert directory.nodes[agent.node_id].load.load == 0.25
    await agent.aclose()
    await wait_until(lambda: gone == [agent.node_id])
    assert await directory.find(agent.node_id) is None


async def test_a_node_that_will_end_says_so_at_once(nats_link: NatsLink, directory: NodeDirectory) -> None:
    agent = _agent(nats_link)
    await agent.start()
    await wait_until(lambda: agent.node_id in directory.nodes)
    agent.drain()
    await wait_until(lambda: directory.nodes[agent.node_id].state == NODE_STATE_DRAINING, timeout_s=1)
    await agent.aclose()


async def test_a_node_whose_key_expires_too_early_lives_on(nats_link: NatsLink, directory: NodeDirectory) -> None:
    """As when the clock of NATS is set: by the reader's own clock it is heard again before its time has passed."""
    gone: list[str] = []
    directory.on_gone(lambda node: gone.append(node.id))
    subject = bucket_subject(subjects.BUCKET_NODES, subjects.node_key("mcu_early"))
    value = Node(id="mcu_early").SerializeToString()
    await nats_link.jetstream.publish(subject, value, headers={"Nats-TTL": "1s"})
    await wait_until(lambda: "mcu_early" in directory.nodes)
    await wait_until(lambda: "mcu_early" in directory._missing_until, timeout_s=5, what="the key to expire")
    assert gone == []
    await tables.nodes(nats_link).put(subjects.node_key("mcu_early"), Node(id="mcu_early"))
    await wait_until(lambda: "mcu_early" not in directory._missing_until)
    await tables.nodes(nats_link).delete(subjects.node_key("mcu_early"))
    await wait_until(lambda: gone == ["mcu_early"])


async def test_a_process_that_stood_still_too_long_is_told(
    nats_link: NatsLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrtc_common.node.NODE_TTL_S", 0.5)
    monkeypatch.setattr("mrtc_common.node._STALL_CHECK_S", 0.05)
    fenced: list[bool] = []
    agent = NodeAgent(
        nats_link,
        node_id=new_node_id("mcu"),
        kind=NODE_KIND_MCU,
        grpc_address="127.0.0.1:1",
        load=NodeLoad,
        on_fenced=lambda: fenced.append(True),
    )
    await agent.start()
    await asyncio.sleep(0.2)
    assert not fenced
    # The whole loop stands still, as that of a frozen process does.
    time.sleep(0.7)  # noqa: ASYNC251
    await wait_until(lambda: fenced == [True])
    await agent.aclose()


async def test_a_node_is_found_before_the_watch_tells_of_it(nats_link: NatsLink) -> None:
    await tables.nodes(nats_link).put(subjects.node_key("n"), Node(id="n"))
    found = await NodeDirectory(nats_link).find("n")
    assert found is not None
    assert found.id == "n"


async def test_a_restart_of_nats_loses_no_node(
    nats_link: NatsLink, nats_server: NatsServer, directory: NodeDirectory
) -> None:
    gone: list[str] = []
    directory.on_gone(lambda node: gone.append(node.id))
    agent = _agent(nats_link)
    await agent.start()
    await wait_until(lambda: agent.node_id in directory.nodes)
    nats_server.kill()
    await wait_until(lambda: not nats_link.is_ready)
    nats_server.wipe()
    nats_server.start()
    await nats_link.wait_ready(15)

    async def is_registered() -> bool:
        return await tables.nodes(nats_link).get(subjects.node_key(agent.node_id)) is not None

    await wait_until(is_registered, timeout_s=5)
    await asyncio.sleep(0.5)
    assert gone == []
    assert agent.node_id in directory.nodes
    await agent.aclose()
