"""A whole master with a real nats-server and real gRPC."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from mrtc.common.v1.common_pb2 import (
    LEAVE_REASON_CONNECTION_LOST,
    LEAVE_REASON_DUPLICATE_IDENTITY,
    Participant,
    Publication,
)
from mrtc.event.v1 import state_pb2
from mrtc.node.v1 import master_service_pb2 as pb
from mrtc.node.v1 import master_service_pb2_grpc
from mrtc_common import subjects, tables
from mrtc_common.errors import (
    BadRequestError,
    MrtcError,
    NoCapacityError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from mrtc_common.grpc import Channels, GrpcSecurity, call
from mrtc_common.kv import Change
from mrtc_common.nats import NatsLink, NatsOptions
from mrtc_common.nats_schema import SchemaOptions
from mrtc_common.node import NodeAgent, new_node_id
from mrtc_common.presence import Presence
from mrtc_common.testing import NatsServer, wait_until
from mrtc_master.bootstrap import Master
from mrtc_master.config import MasterSettings

pytestmark = pytest.mark.integration

GRACE_S = 2.0
SECRET = "a secret of the tests"
ROOM = subjects.room_key("app", "room")


def _settings(nats_url: str, **values: Any) -> MasterSettings:
    defaults = {
        "cluster_secret": SECRET,
        "bind_ip": "127.0.0.1",
        "grpc_port": 0,
        "http_port": 0,
        "nats_urls": nats_url,
        "session_grace_s": GRACE_S,
        "orphan_grace_s": 0.5,
    }
    return MasterSettings.from_values(defaults | values)


@pytest_asyncio.fixture
async def nats_link(nats_server: NatsServer) -> AsyncIterator[NatsLink]:
    options = NatsOptions(urls=(nats_server.url,), schema=SchemaOptions(session_grace_s=GRACE_S))
    async with NatsLink(options, name="test") as link:
        await link.wait_ready(10)
        yield link


@pytest_asyncio.fixture
async def master(nats_server: NatsServer) -> AsyncIterator[Master]:
    async with Master(_settings(nats_server.url)) as running:
        await wait_until(lambda: running.health.is_ready and running.lease.is_held, what="master ready")
        yield running


@pytest_asyncio.fixture
async def stub(master: Master) -> AsyncIterator[Any]:
    async with Channels(GrpcSecurity(SECRET)) as channels:
        yield master_service_pb2_grpc.MasterServiceStub(channels.get(f"127.0.0.1:{master.grpc_port}"))


@pytest_asyncio.fixture
async def add_node(nats_link: NatsLink) -> AsyncIterator[Callable[..., Awaitable[NodeAgent]]]:
    agents = []

    async def add(load: float = 0.1, **options: Any) -> NodeAgent:
        agent = NodeAgent(
            options.pop("link", nats_link),
            node_id=new_node_id("mcu"),
            kind=pb.NODE_KIND_MCU,
            grpc_address="127.0.0.1:1",
            load=lambda: pb.NodeLoad(load=load),
            **options,
        )
        agents.append(agent)
        await agent.start()
        return agent

    yield add
    for agent in agents:
        await agent.aclose()


async def _place(stub: Any, **fields: Any) -> str:
    request = pb.PlaceParticipantRequest(room_key=ROOM, **fields)
    return (await call(stub.PlaceParticipant, request)).node.id


async def _error_of(stub: Any, **fields: Any) -> type[MrtcError]:
    try:
        await _place(stub, **fields)
    except MrtcError as error:
        return type(error)
    raise AssertionError


async def _nodes(stub: Any) -> dict[str, int]:
    return {node.id: node.state for node in (await call(stub.ListNodes, pb.ListNodesRequest())).nodes}


async def test_without_nodes_there_is_no_capacity(stub: Any) -> None:
    with pytest.raises(NoCapacityError) as caught:
        await _place(stub)
    assert caught.value.retry_after_ms


async def test_a_registered_node_is_placed_on_and_a_closed_one_is_not(stub: Any, add_node: Any) -> None:
    agent = await add_node()
    await wait_until(lambda: _nodes(stub))
    assert await _place(stub) == agent.node_id
    await agent.aclose()
    await wait_until(lambda: _is(_nodes(stub), {agent.node_id: pb.NODE_STATE_DEAD}))
    assert await _error_of(stub) is NoCapacityError


async def _is(value: Awaitable[object], expected: object) -> bool:
    return await value == expected


async def test_a_draining_node_gets_nobody_until_it_is_taken_back(stub: Any, add_node: Any) -> None:
    told: list[bool] = []
    agent = await add_node(on_drain=told.append)
    await wait_until(lambda: _nodes(stub))
    await call(stub.SetNodeDraining, pb.SetNodeDrainingRequest(node_id=agent.node_id, is_draining=True))
    await wait_until(lambda: _is(_nodes(stub), {agent.node_id: pb.NODE_STATE_DRAINING}))
    assert await _error_of(stub) is NoCapacityError
    await call(stub.SetNodeDraining, pb.SetNodeDrainingRequest(node_id=agent.node_id, is_draining=False))
    await wait_until(lambda: _is(_nodes(stub), {agent.node_id: pb.NODE_STATE_READY}))
    assert await _place(stub) == agent.node_id
    assert told == [True, False]


async def test_a_node_that_is_silent_gets_nobody_before_it_counts_as_dead(
    master: Master, stub: Any, add_node: Any, nats_link: NatsLink
) -> None:
    agent = await add_node()
    await tables.nodes(nats_link).put(
        "mcu_silent", pb.Node(id="mcu_silent", kind=pb.NODE_KIND_MCU, state=pb.NODE_STATE_READY)
    )
    await wait_until(lambda: len(master.directory.nodes) == 2)
    await wait_until(lambda: list(master.directory.heard_within(5.0)) == [agent.node_id], timeout_s=9)
    assert len(await _nodes(stub)) == 2
    assert {await _place(stub, room_node_ids=["mcu_silent"]) for _ in range(5)} == {agent.node_id}


async def test_a_full_room_spills_within_its_zone_and_leaves_one_that_loses_a_node(
    stub: Any, add_node: Any, nats_link: NatsLink
) -> None:
    full = await add_node(0.9, region="eu", zone="a")
    beside = await add_node(0.5, region="eu", zone="a")
    elsewhere = await add_node(0.1, region="eu", zone="b")
    await wait_until(lambda: _has_nodes(stub, 3))
    ask = {"region": "eu", "room_node_ids": [full.node_id]}
    assert await _place(stub, **ask) == beside.node_id
    # As if it had died: its key goes without a word.
    await tables.nodes(nats_link).delete(subjects.node_key(full.node_id))
    await wait_until(lambda: _has_shaken(stub, ask, elsewhere.node_id), what="the zone to be avoided")


async def _has_nodes(stub: Any, count: int) -> bool:
    return len(await _nodes(stub)) == count


async def _has_shaken(stub: Any, ask: dict[str, Any], expected: str) -> bool:
    request = pb.PlaceParticipantRequest(room_key=subjects.room_key("app", new_node_id("room")), **ask)
    return (await call(stub.PlaceParticipant, request)).node.id == expected


async def test_draining_an_unknown_node_is_an_error(stub: Any) -> None:
    with pytest.raises(NotFoundError):
        await call(stub.SetNodeDraining, pb.SetNodeDrainingRequest(node_id="nope", is_draining=True))


@pytest.mark.parametrize("room_key", ["", "x", "a.b.c", "A.B", "a.>", "../.."])
async def test_a_malformed_room_key_is_refused(stub: Any, room_key: str) -> None:
    with pytest.raises(BadRequestError):
        await call(stub.PlaceParticipant, pb.PlaceParticipantRequest(room_key=room_key))


async def test_calls_without_the_secret_are_refused(master: Master) -> None:
    async with Channels(GrpcSecurity("another secret")) as channels:
        other = master_service_pb2_grpc.MasterServiceStub(channels.get(f"127.0.0.1:{master.grpc_port}"))
        with pytest.raises(UnauthenticatedError):
            await call(other.ListNodes, pb.ListNodesRequest())


async def test_nodes_over_http_need_the_secret(master: Master, stub: Any, add_node: Any) -> None:
    agent = await add_node()
    await wait_until(lambda: _nodes(stub))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{master.http_port}") as client:
        assert (await client.get("/nodes")).status_code == 401
        refused = await client.get("/nodes", headers={"authorization": "Bearer wrong"})
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
        listed = await client.get("/nodes", headers={"authorization": f"Bearer {SECRET}"})
        assert [node["id"] for node in listed.json()["nodes"]] == [agent.node_id]
        assert (await client.get("/load")).status_code == 401
        loads = (await client.get("/load", headers={"authorization": f"Bearer {SECRET}"})).json()
        assert (loads["mcu"]["ready"], loads["mcu"]["draining"], loads["mcu"]["wanted"]) == (1, 0, 1)
        assert 0 <= loads["mcu"]["load"] == loads["mcu"]["highest"] <= 1
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).json()["is_ready"] is True

        async def is_counted() -> bool:
            return 'mrtc_master_nodes_count{kind="mcu",state="ready"} 1.0' in (await client.get("/metrics")).text

        await wait_until(is_counted)


async def test_the_sessions_of_a_dead_node_are_told(nats_link: NatsLink, stub: Any, add_node: Any) -> None:
    agent = await add_node()
    await wait_until(lambda: _nodes(stub))
    orders, events = [], []

    async def on_order(_subject: str, payload: bytes) -> None:
        orders.append(state_pb2.SessionControl.FromString(payload).media_node_lost.node_id)

    async def on_event(_subject: str, payload: bytes) -> None:
        events.append(state_pb2.NodeDied.FromString(payload).node_id)

    await nats_link.subscribe(subjects.control_subject("s1"), on_order)
    await nats_link.subscribe(subjects.NODE_EVENTS_WILDCARD, on_event)
    sessions = tables.sessions(nats_link)
    await sessions.put("s1", state_pb2.SessionRecord(session_id="s1", node_id=agent.node_id))
    await agent.aclose()
    await wait_until(lambda: orders and events)
    assert orders[0] == events[0] == agent.node_id


async def _join(link: NatsLink) -> None:
    rooms = tables.rooms(link)
    await tables.sessions(link).put("s1", state_pb2.SessionRecord(session_id="s1"))
    await rooms.put(subjects.room_record_key(ROOM), state_pb2.RoomRecord(name="room", empty_timeout_ms=500))
    await rooms.put(subjects.identity_key(ROOM, "ann"), state_pb2.IdentityRecord(participant_id="p1"))
    participant = Participant(id="p1", identity="ann")
    await rooms.put(
        subjects.participant_key(ROOM, "p1"), state_pb2.ParticipantRecord(participant=participant, session_id="s1")
    )
    publication = Publication(id="pub1", participant_id="p1")
    await rooms.put(subjects.publication_key(ROOM, "pub1"), state_pb2.PublicationRecord(publication=publication))


async def test_a_participant_whose_session_expired_is_reaped_and_its_room_closed(
    master: Master, nats_link: NatsLink
) -> None:
    await _join(nats_link)
    rooms = tables.rooms(nats_link)
    finals = []
    async with asyncio.timeout(20), rooms.watch(subjects.room_filter(ROOM)) as watch:
        gone = set()
        async for item in watch:
            if isinstance(item, Change) and item.value is None:
                gone.add(item.key)
                finals.append(item.final)
            if len(gone) == 4:
                break
    assert any(
        isinstance(final, state_pb2.ParticipantRecord) and final.leave_reason == LEAVE_REASON_CONNECTION_LOST
        for final in finals
    )
    assert await rooms.list() == []


async def test_no_session_ends_while_no_signaling_instance_serves(master: Master, nats_link: NatsLink) -> None:
    """Its grace time passes only while its client could come back: four of them pass, and it is there; then one, and
    it is gone."""
    rooms, sessions = tables.rooms(nats_link), tables.sessions(nats_link)
    presence = Presence(nats_link, "signaling", "sg1", GRACE_S)
    await presence.start()
    await wait_until(lambda: master.serving.is_served, what="the presence to be heard")
    await _join(nats_link)
    await presence.aclose()
    await asyncio.sleep(4 * GRACE_S)  # the time itself is what is tested
    assert await sessions.get("s1") is not None
    assert await rooms.get(subjects.participant_key(ROOM, "p1")) is not None
    again = Presence(nats_link, "signaling", "sg2", GRACE_S)
    await again.start()

    async def has_gone() -> bool:
        return await rooms.get(subjects.participant_key(ROOM, "p1")) is None

    await wait_until(has_gone, timeout_s=4 * GRACE_S, what="the session to expire")
    await again.aclose()


async def test_of_two_with_one_identity_the_newest_stays(master: Master, nats_link: NatsLink) -> None:
    await _join(nats_link)
    rooms = tables.rooms(nats_link)
    await tables.sessions(nats_link).put("s2", state_pb2.SessionRecord(session_id="s2"))
    await rooms.put(subjects.identity_key(ROOM, "ann"), state_pb2.IdentityRecord(participant_id="p2"))
    newer = state_pb2.ParticipantRecord(participant=Participant(id="p2", identity="ann"), session_id="s2")
    await rooms.put(subjects.participant_key(ROOM, "p2"), newer)
    async with asyncio.timeout(10), rooms.watch(f"{ROOM}.{subjects.RoomEntryKind.PARTICIPANT}.*") as watch:
        async for item in watch:
            if isinstance(item, Change) and item.value is None:
                break
    assert item.key == subjects.participant_key(ROOM, "p1")
    assert isinstance(item.final, state_pb2.ParticipantRecord)
    assert item.final.leave_reason == LEAVE_REASON_DUPLICATE_IDENTITY
    assert await rooms.get(subjects.publication_key(ROOM, "pub1")) is None
    held = await rooms.get(subjects.identity_key(ROOM, "ann"))
    assert held is not None
    assert held.value == state_pb2.IdentityRecord(participant_id="p2")


async def test_a_refreshed_session_keeps_its_participant_over_a_restart_of_nats(
    master: Master, nats_link: NatsLink, nats_server: NatsServer
) -> None:
    await _join(nats_link)
    sessions = tables.sessions(nats_link)

    async def refresh() -> None:
        while True:
            with contextlib.suppress(UnavailableError):
                await sessions.put("s1", state_pb2.SessionRecord(session_id="s1"))
            await asyncio.sleep(0.5)

    task = asyncio.create_task(refresh())
    gone = []
    async with tables.rooms(nats_link).watch(subjects.participant_key(ROOM, "p1")) as watch:

        async def follow() -> None:
            async for item in watch:
                if isinstance(item, Change) and item.value is None:
                    gone.append(item.key)

        follower = asyncio.create_task(follow())
        nats_server.kill()
        await wait_until(lambda: not master.health.is_ready)
        await asyncio.sleep(3)  # longer than the session's TTL: the time itself is what is tested
        nats_server.start()
        await wait_until(lambda: master.health.is_ready, timeout_s=15)
        await asyncio.sleep(3.5)  # longer than the grace after a resync
        assert gone == []
        follower.cancel()
    task.cancel()
    await tables.sessions(nats_link).delete("s1")


async def test_nodes_survive_a_restart_of_nats(
    master: Master, stub: Any, add_node: Any, nats_server: NatsServer
) -> None:
    agent = await add_node()
    await wait_until(lambda: _nodes(stub))
    nats_server.kill()
    await wait_until(lambda: not master.health.is_ready)
    assert await _place(stub) == agent.node_id  # placement goes on from memory
    nats_server.start()
    await wait_until(lambda: master.health.is_ready, timeout_s=15)
    for _ in range(20):
        assert await _nodes(stub) == {agent.node_id: pb.NODE_STATE_READY}
        await asyncio.sleep(0.05)


async def test_of_two_masters_one_holds_the_lease_and_the_other_takes_over(
    nats_server: NatsServer,
) -> None:
    async with Master(_settings(nats_server.url)) as first:
        await wait_until(lambda: first.lease.is_held)
        async with Master(_settings(nats_server.url)) as second:
            await wait_until(lambda: second.health.is_ready)
            assert not second.lease.is_held
            await first.lease.aclose()
            await wait_until(lambda: second.lease.is_held)
            assert not first.lease.is_held


async def test_master_starts_without_nats_and_joins_when_it_comes(nats_server: NatsServer) -> None:
    nats_server.kill()
    async with Master(_settings(nats_server.url)) as master:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{master.http_port}") as client:
            answer = await client.get("/readyz")
            assert answer.status_code == 503
            assert "nats" in answer.json()["missing"]
            assert (await client.get("/healthz")).status_code == 200
        nats_server.start()
        await wait_until(lambda: master.health.is_ready, timeout_s=15)
