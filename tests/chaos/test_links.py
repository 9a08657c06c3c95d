"""The network between two media nodes is cut while both live and everything else reaches both."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from mrtc_common.ports import free_port
from mrtc_embedded.process import Process

from tests.chaos.call import Call, call_of
from tests.support.balancer import balancer
from tests.support.networks import Namespace, join_namespaces, namespace, needs_namespaces
from tests.support.suite import RunningSuite, running_suite

pytestmark = [pytest.mark.chaos, pytest.mark.long]

# Longer than everything that could take a node for dead: two heartbeats, the pulse, the registry's time.
CUT_S = 12.0
# The machine of the tests is busy with their own decoding; a cut that were felt here would last longer by far.
MAX_GAP_S = 2.0


@pytest.fixture
def headless(tmp_path: Path) -> Iterator[RunningSuite]:
    """A suite without media nodes."""
    needs_namespaces()
    with running_suite(tmp_path / "suite", mcus=0, services=("master", "signaling")) as running:
        yield running


@pytest_asyncio.fixture
async def machines(headless: RunningSuite, tmp_path: Path) -> AsyncIterator[list[Namespace]]:
    """Two machines with a media node each. They reach NATS and clients without the network between them."""
    async with contextlib.AsyncExitStack() as stack:
        made = [stack.enter_context(namespace(tmp_path)) for _ in range(2)]
        for number, machine in enumerate(made):
            machine.add_link()
            nats_url = headless.suite.service_env["MRTC_NATS_URLS"]
            listener = machine.listen(int(nats_url.rsplit(":", 1)[1]))
            await stack.enter_async_context(balancer([nats_url], listener))
            process = _node(headless, machine, f"rtcmcu-{number + 1}")
            await process.start()
            stack.push_async_callback(process.stop)
            await process.wait_ready()
        yield made


def _node(suite: RunningSuite, machine: Namespace, name: str) -> Process:
    address, http_port = machine.links[0].client, free_port()
    settings = {
        "BIND_IP": "0.0.0.0",
        "NODE_HOST": address,
        "ADVERTISED_IPS": address,
        "HTTP_PORT": str(http_port),
        "GRPC_PORT": "0",
        "UDP_PORT": "0",
        "TCP_PORT": "0",
        "WORKERS": "1",
        "DRAIN_TIMEOUT_S": "2",
    }
    env = suite.suite.service_env | {f"MRTC_RTCMCU_{key}": value for key, value in settings.items()}
    return Process(
        name,
        [machine.program(suite.suite.processes["master"].argv[0]), "-m", "mrtc_rtcmcu"],
        env,
        suite.data_dir / "log" / f"{name}.log",
        ready_url=f"http://{address}:{http_port}/readyz",
    )


async def _spread(call: Call) -> dict[str, str]:
    """One moves to the other node; gives the node of everybody."""
    await call.move(call.identities[-1])
    nodes = await call.nodes()
    assert len(set(nodes.values())) == 2
    return nodes


@pytest.mark.timeout(300)
async def test_a_room_is_whole_again_when_the_network_between_its_nodes_is(
    headless: RunningSuite, machines: list[Namespace]
) -> None:
    """Cut: those at one node go on without a gap, nobody is moved or thrown out. Back: everybody sees everybody."""
    with join_namespaces(*machines) as between:
        async with call_of(headless, f"room-{uuid.uuid4().hex[:8]}", 3) as call:
            nodes = await _spread(call)
            sessions = {identity: one.session_id for identity, one in (await call.reports()).items()}
            await call.mark()
            between.cut()
            await asyncio.sleep(CUT_S)  # the time itself is what is tested
            for identity, report in (await call.reports()).items():
                for other, gap_s in report.gaps_s.items():
                    if nodes[other] == nodes[identity]:
                        assert gap_s < MAX_GAP_S
                    else:
                        assert gap_s > CUT_S / 2, "the cut was not felt"
            assert await call.nodes() == nodes
            between.restore()
            back = time.monotonic()
            await call.is_whole(30)
            took = time.monotonic() - back
            print(f"whole again {took:.1f} s after the network's return")
            assert await call.nodes() == nodes
            assert {identity: one.session_id for identity, one in (await call.reports()).items()} == sessions
            assert await call.messages() == (0, 0)
            assert not any((await call.leftovers()).values())
