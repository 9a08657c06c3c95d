"""A node's start, drain, end and absences, its load, and captures."""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from mrtc.media.v1 import media_service_pb2 as pb
from mrtc.media.v1 import media_service_pb2_grpc
from mrtc_common import subjects, tables
from mrtc_common.errors import (
    BadRequestError,
    LimitExceededError,
    NoCapacityError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from mrtc_common.grpc import Channels, GrpcSecurity, call, stream
from mrtc_common.nats import NatsLink
from mrtc_common.testing import NatsServer, wait_until

from services.rtcmcu.tests.running_node import ROOM, Node, StartNode, slots_of

pytestmark = pytest.mark.integration


async def test_a_draining_node_refuses_and_says_so_in_the_registry(node: Node, nats_link: NatsLink) -> None:
    await tables.drains(nats_link).put(subjects.drain_key(node.id), (await _entry(nats_link, node.id)))
    await wait_until(lambda: not node.mcu.health.is_ready)
    with pytest.raises(NoCapacityError):
        await node.create("t1")


async def test_a_draining_node_asks_its_clients_to_move_each_in_its_turn_and_again(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrtc_rtcmcu.core.turns.ASK_AGAIN_S", 0.3)
    node = await start_node(drain_moves_per_s=50.0, drain_spread_s=0.1)
    for transport_id in ("t1", "t2", "t3"):
        await node.create(transport_id)
    # Who is not connected yet is not asked.
    for transport_id in ("t1", "t2"):
        node.engine.emit("TransportConnected", transport=transport_id)
    asked: list[str] = []

    async def watch() -> None:
        async for item in stream(node.stub.WatchTransports, pb.WatchTransportsRequest()):
            if item.WhichOneof("event") == "move_wanted":
                asked.append(item.transport_id)

    task = asyncio.create_task(watch())
    await wait_until(lambda: len(node.mcu.media.watchers))
    node.mcu.mover.set(True)
    await wait_until(lambda: asked[:2] == ["t1", "t2"])
    await node.close("t1")
    await wait_until(lambda: asked.count("t2") >= 2)
    assert "t3" not in asked
    # Taken back: nobody is asked any more.
    node.mcu.mover.set(False)
    node.engine.emit("TransportConnected", transport="t3")
    await node.subscribe("t2")
    assert "t3" not in asked
    task.cancel()


async def _entry(link: NatsLink, node_id: str) -> Any:
    entry = await tables.nodes(link).get(subjects.node_key(node_id))
    assert entry is not None
    return entry.value


async def test_the_end_of_the_process_closes_transports_with_a_reason(start_node: StartNode) -> None:
    node = await start_node()
    await node.create("t1")
    reasons = []

    async def watch() -> None:
        with contextlib.suppress(UnavailableError):
            async for item in stream(node.stub.WatchTransports, pb.WatchTransportsRequest()):
                reasons.append(item.closed.reason)

    task = asyncio.create_task(watch())
    await wait_until(lambda: len(node.mcu.media.watchers))
    await node.mcu.drain()
    await asyncio.wait_for(task, 5)
    assert reasons == ["node_shutdown"]
    assert not node.mcu.health.is_ready


async def test_a_node_that_was_taken_for_dead_gives_up_its_transports_and_serves_on(start_node: StartNode) -> None:
    node = await start_node()
    await node.create("t1")
    reasons: list[str] = []

    async def watch() -> None:
        async for item in stream(node.stub.WatchTransports, pb.WatchTransportsRequest()):
            reasons.append(item.closed.reason)

    task = asyncio.create_task(watch())
    await wait_until(lambda: len(node.mcu.media.watchers))
    node.mcu.media.abandon()
    await wait_until(lambda: reasons == ["node_lost"])
    assert (await node.create("t2")).answer
    task.cancel()


async def test_calls_are_served_and_the_node_registers_anew_over_a_restart_of_nats(
    node: Node, nats_server: NatsServer, nats_link: NatsLink
) -> None:
    await node.create("t1")
    nats_server.kill()
    await wait_until(lambda: not node.mcu.health.is_ready)
    await node.publish("t1", "a")
    await node.create("v1")
    assert slots_of(await node.subscribe("v1", "a"))[0] == "a"
    nats_server.start()
    await wait_until(lambda: node.mcu.health.is_ready, timeout_s=15)
    await nats_link.wait_ready(15)

    async def is_registered() -> bool:
        with contextlib.suppress(UnavailableError):
            return await tables.nodes(nats_link).get(subjects.node_key(node.id)) is not None
        return False

    await wait_until(is_registered)


async def test_a_node_starts_without_nats_and_joins_when_it_comes(
    start_node: StartNode, nats_server: NatsServer
) -> None:
    nats_server.kill()
    node = await start_node(wait=False)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{node.mcu.http_port}") as client:
        answer = await client.get("/readyz")
        assert (answer.status_code, list(answer.json()["missing"])) == (503, ["nats"])
        nats_server.start()
        await wait_until(lambda: node.mcu.health.is_ready, timeout_s=15)
        text = (await client.get("/metrics")).text
    assert 'mrtc_rtcmcu_engine_tx_rtp_packets_total{worker="0"} 7.0' in text
    assert 'mrtc_rtcmcu_engine_drops_total{reason="malformed",worker="0"} 2.0' in text
    delay = "mrtc_rtcmcu_engine_tx_delay_seconds"
    found = [line.removeprefix(delay) for line in text.splitlines() if line.startswith(delay)]
    assert found == [
        '_bucket{le="0.00025",worker="0"} 3.0',
        '_bucket{le="0.001",worker="0"} 5.0',
        '_bucket{le="+Inf",worker="0"} 6.0',
        '_count{worker="0"} 6.0',
        '_sum{worker="0"} 2.5',
    ]


async def test_load_is_the_largest_part(start_node: StartNode, nats_link: NatsLink) -> None:
    node = await start_node(max_transports=4)
    for n in range(3):
        await node.create(f"t{n}")

    async def load() -> bool:
        value = (await _entry(nats_link, node.id)).load
        return value.load >= 0.75 and value.transports == 3 and value.rooms == 1

    await wait_until(load)


async def test_figures_of_many_transports_are_asked_for_in_batches(node: Node) -> None:
    """No engine worker is held up by a question about hundreds of transports; an unknown one is left out."""
    ids = [f"t{n}" for n in range(70)]
    await asyncio.gather(*(node.create(transport_id) for transport_id in ids))
    for asked in ([], [*ids, "unknown"]):
        node.engine.calls.clear()
        answer = await call(node.stub.GetStats, pb.GetStatsRequest(transport_ids=asked))
        found = json.loads(answer.json)["transports"]
        assert {(entry["id"], entry["participant_id"]) for entry in found} == {(i, f"p-{i}") for i in ids}
        assert node.engine.calls == ["stats"] * 3


async def test_captures_are_off_unless_a_folder_is_set(node: Node) -> None:
    request = pb.StartCaptureRequest(room_key=ROOM, content=pb.CAPTURE_CONTENT_HEADERS)
    with pytest.raises(PermissionDeniedError, match="capture_dir"):
        await call(node.stub.StartCapture, request)
    assert "start_capture" not in node.engine.calls


async def test_a_capture_needs_the_secret_of_the_cluster(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(capture_dir=str(tmp_path / "captures"))
    request = pb.StartCaptureRequest(room_key=ROOM, content=pb.CAPTURE_CONTENT_PACKETS)
    async with Channels(GrpcSecurity("a secret of somebody else")) as channels:
        stub = media_service_pb2_grpc.MediaServiceStub(channels.get(f"127.0.0.1:{node.mcu.grpc_port}"))
        with pytest.raises(UnauthenticatedError):
            await call(stub.StartCapture, request)
    assert "start_capture" not in node.engine.calls
    assert not (tmp_path / "captures").exists()


async def test_limits_of_a_capture_are_the_nodes(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(capture_dir=str(tmp_path), capture_max_bytes=5000, capture_max_s=7)
    base = {"room_key": ROOM, "content": pb.CAPTURE_CONTENT_HEADERS}
    for asked, given in (({}, (5000, 7)), ({"max_bytes": 4500, "max_duration_ms": 500}, (4500, 0.5))):
        begun = await call(node.stub.StartCapture, pb.StartCaptureRequest(**base, **asked))
        assert (node.engine.capture["max_bytes"], node.engine.capture["max_duration_s"]) == given
        await call(node.stub.StopCapture, pb.StopCaptureRequest(capture_id=begun.capture_id))
    over = {"max_bytes": 1 << 40, "max_duration_ms": 1 << 31}
    await call(node.stub.StartCapture, pb.StartCaptureRequest(**base, **over))
    assert (node.engine.capture["max_bytes"], node.engine.capture["max_duration_s"]) == (5000, 7)


async def test_one_capture_at_a_time_which_must_say_what_it_takes(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(capture_dir=str(tmp_path / "captures"))
    content = pb.CAPTURE_CONTENT_PACKETS
    for wrong in (
        pb.StartCaptureRequest(room_key=ROOM),
        pb.StartCaptureRequest(content=content),
        pb.StartCaptureRequest(room_key=ROOM, transport_id="t1", content=content),
        pb.StartCaptureRequest(room_key="../x", content=content),
    ):
        with pytest.raises(BadRequestError):
            await call(node.stub.StartCapture, wrong)
    request = pb.StartCaptureRequest(room_key=ROOM, content=content)
    begun = await call(node.stub.StartCapture, request)
    assert Path(begun.path).parent == tmp_path / "captures"
    with pytest.raises(LimitExceededError):
        await call(node.stub.StartCapture, request)
    with pytest.raises(NotFoundError):
        await call(node.stub.StopCapture, pb.StopCaptureRequest(capture_id="other"))
    ended = await call(node.stub.StopCapture, pb.StopCaptureRequest(capture_id=begun.capture_id))
    assert (ended.packets, ended.bytes, ended.dropped) == (5, 600, 1)
