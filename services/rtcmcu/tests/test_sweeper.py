"""Transports that no session knows end; those of somebody who is there never do, whatever else is away."""

import asyncio

import pytest
from mrtc.event.v1.state_pb2 import ParticipantRecord, SessionRecord
from mrtc_common import subjects, tables
from mrtc_common.nats import NatsLink
from mrtc_common.testing import NatsServer, wait_until
from mrtc_rtcmcu.core.orphans import Orphans

from services.rtcmcu.tests.running_node import ROOM, Node, StartNode

GRACE_S = 0.4


def test_only_the_second_no_counts_and_only_after_the_grace_time() -> None:
    """A transport is asked about once per grace time; a yes in between begins anew."""
    orphans = Orphans(10.0)
    assert orphans.due(["t"], 0.0) == []
    assert orphans.due(["t"], 10.0) == ["t"]
    assert not orphans.answered("t", is_owned=False, now=10.0)
    assert orphans.due(["t"], 19.0) == []
    assert orphans.due(["t"], 20.0) == ["t"]
    assert not orphans.answered("t", is_owned=True, now=20.0)
    assert not orphans.answered("t", is_owned=False, now=30.0)
    assert orphans.answered("t", is_owned=False, now=40.0)


def test_who_was_away_has_said_nothing() -> None:
    """After an absence of the store all questions begin anew; a transport that ended is forgotten."""
    orphans = Orphans(10.0)
    orphans.due(["t", "u"], 0.0)
    assert not orphans.answered("t", is_owned=False, now=10.0)
    orphans.begin_anew()
    assert orphans.due(["t"], 11.0) == []
    assert orphans.due(["t"], 21.0) == ["t"]
    assert not orphans.answered("t", is_owned=False, now=21.0)
    orphans.due([], 22.0)
    orphans.due(["t"], 23.0)
    assert not orphans.answered("t", is_owned=False, now=33.0)


def transports(node: Node) -> set[str]:
    return {state.transport_id for state in node.mcu.media.transports}


async def show(link: NatsLink, transport_id: str, *, in_session: str = "") -> str:
    """Writes the participant of a transport, and what its session has; returns the participant's key."""
    key = subjects.participant_key(ROOM, f"p-{transport_id}")
    session_id = f"s-{transport_id}"
    shown = "" if in_session else transport_id
    await tables.rooms(link).put(key, ParticipantRecord(session_id=session_id, transport_id=shown))
    record = SessionRecord(session_id=session_id, transport_id=in_session)
    await tables.sessions(link).put(subjects.session_key(session_id), record)
    return key


@pytest.mark.integration
async def test_a_transport_whose_session_was_never_written_ends(start_node: StartNode, nats_link: NatsLink) -> None:
    """As when signaling is killed after the node's answer; one that the room or only a session knows stays."""
    node = await start_node(orphan_grace_s=GRACE_S)
    key = await show(nats_link, "shown")
    await show(nats_link, "moving", in_session="moving")
    for name in ("orphan", "shown", "moving"):
        await node.create(name)
    await wait_until(lambda: transports(node) == {"shown", "moving"})
    await asyncio.sleep(4 * GRACE_S)
    assert transports(node) == {"shown", "moving"}
    closed = node.mcu.figures.transports_closed.labels("orphan")
    assert closed._value.get() == 1
    # A former transport: the participant has another one now, which its session names too.
    await show(nats_link, "moving", in_session="elsewhere")
    await tables.rooms(nats_link).delete(key)
    await wait_until(lambda: not transports(node))


@pytest.mark.integration
async def test_nobody_is_an_orphan_while_nats_is_away(
    start_node: StartNode, nats_link: NatsLink, nats_server: NatsServer
) -> None:
    """No answer is no no: a transport stays however long it takes, and what was said before counts no more."""
    node = await start_node(orphan_grace_s=GRACE_S)
    await node.create("t1")
    nats_server.kill()
    await wait_until(lambda: not node.mcu.link.is_ready)
    await asyncio.sleep(5 * GRACE_S)
    assert transports(node) == {"t1"}
    nats_server.start()
    await wait_until(lambda: node.mcu.link.is_ready and nats_link.is_ready)
    await show(nats_link, "t1")
    await asyncio.sleep(4 * GRACE_S)
    assert transports(node) == {"t1"}
