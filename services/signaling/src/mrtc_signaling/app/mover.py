"""Moves a session's media to another node while the call goes on: a second transport, or the transport itself."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from mrtc.common.v1 import common_pb2
from mrtc.signaling.v1 import client_pb2
from mrtc_common.errors import MrtcError, NoCapacityError
from mrtc_common.log import get_logger

from mrtc_signaling.core import sdp

from .carrier import Carrier, StayedError, can_carry
from .transport_leg import Place, TransportLeg, close_transport

if TYPE_CHECKING:
    from .session import Session

_log = get_logger(__name__)

# A transport that is not connected after this is not going to be.
_CONNECT_TIMEOUT_S = 15.0
# The former transport is kept so long after the new one is connected: everybody else has gone over then, at key frames.
_LINGER_S = 3.0
# Those who receive a publisher that was carried have gone over by then.
_FOLLOW_S = 1.0


class Mover:
    """The moves of one session, one after the other.

    A move is the client's doing, since it has to make a second peer connection: it is asked (`request`), negotiates,
    and what it had is left behind (`leave`). WHIP and WHEP have no way to ask: the transport itself goes to another
    node (`Carrier`). Where that cannot be, or the client does not follow, the session ends; its client learns that at
    once from DTLS, and begins anew on another node.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._target = ""
        self._connected = asyncio.Event()
        self._carrier: Carrier | None = None
        self._left: list[Place] = []

    def request(self, node_id: str = "", *, is_optional: bool = False) -> None:
        """Asks the client to move: to this node, or to any but the present one.

        Args:
            is_optional: only to a node that is better, and only who can without a break.
        """
        session = self._session
        if not session.leg.is_open or (session.connection is None and not session.is_headless):
            return
        if is_optional and (session.is_headless or self._left):
            return
        session.spawn(self._ask(node_id, is_optional))

    def take_target(self) -> str:
        """The node that was asked for last, for the transport that is opened now."""
        target, self._target = self._target, ""
        return target

    def connected(self) -> None:
        """The present transport is connected."""
        self._connected.set()

    def leave(self, node_id: str, transport_id: str) -> None:
        """The client has a transport beside this one, which ends when the new one flows."""
        self._connected = asyncio.Event()
        self._left.append((node_id, transport_id))
        self._session.spawn(self._finish(node_id, transport_id, self._connected))

    def take_left(self) -> list[Place]:
        """Transports beside the present one that are still there: the session ends, and they with it."""
        beside = self._carrier.beside() if self._carrier is not None else None
        left, self._left, self._carrier = [*self._left, *([beside] if beside else [])], [], None
        return left

    def leg_to_restart(self) -> TransportLeg:
        """Where an ICE restart leads: to the node that calls the client, if one does."""
        carrier = self._carrier
        return carrier.leg if carrier is not None and carrier.leg.is_open else self._session.leg

    def may_revive(self) -> bool:
        """True if the client would follow when its node dies: then checkpoints are worth their price."""
        session = self._session
        is_whole = session.is_headless and session.leg.is_open and can_carry(session)
        return is_whole and sdp.follows_calls(session.record.http.offer)

    def can_revive(self) -> bool:
        """True if there is a checkpoint that may be used now."""
        session, checkpoint = self._session, self._session.checkpoint
        now = session.ctx.clock.monotonic()
        return checkpoint is not None and checkpoint.is_good_for(session.leg.transport_id, now)

    def revive(self) -> bool:
        """The node is dead: the transport goes on elsewhere as it was at its last checkpoint. False: it cannot."""
        session, is_good = self._session, self.can_revive()
        checkpoint, session.checkpoint = session.checkpoint, None
        if checkpoint is None or not is_good or self._carrier is not None:
            return False
        self._carrier = Carrier(session)
        session.spawn(self._revive(self._carrier, checkpoint.state))
        return True

    async def _revive(self, carrier: Carrier, state: bytes) -> None:
        session, dead_node, self._connected = self._session, self._session.leg.node_id, asyncio.Event()
        result = "lost"
        try:
            # An instance that NATS does not reach may have lost the session: two must not go on from two checkpoints.
            await session.owner.assure(session)
            await carrier.revive(state)
            async with asyncio.timeout(session.ctx.options.carry_timeout_s):
                await self._connected.wait()
            result = "revived"
        except (MrtcError, TimeoutError) as error:
            _log.warning("a transport was not revived", error=str(error) or type(error).__name__)
        finally:
            self._carrier = None
        session.ctx.metrics.carries.labels(result).inc()
        _log.info("the node of a client died", from_node=dead_node, to_node=session.leg.node_id, result=result)
        if beside := carrier.beside():
            self._left.append(beside)
        if result == "lost":
            session.media_lost("node_lost")
        elif carrier.former is not None:
            # Should that node be alive after all: of two that have the keys one must go.
            session.spawn(self._finish(*carrier.former, self._connected))

    async def _ask(self, node_id: str, is_optional: bool) -> None:
        session = self._session
        if not (elsewhere := node_id or await self._elsewhere(is_optional)):
            _log.info("no other media node has room; the media stays", node_id=session.leg.node_id)
        elif not session.is_headless:
            self._target = elsewhere if is_optional else node_id
            session.push(client_pb2.ServerFrame(move_requested=client_pb2.MoveRequested()))
        elif self._carrier is None:
            self._carrier = carrier = Carrier(session)
            try:
                await self._carry_in_turn(carrier, node_id)
            finally:
                self._carrier = None

    async def _elsewhere(self, is_relief: bool) -> str:
        """Another node that has room; empty: none."""
        session, here = self._session, self._session.leg.node_id
        others = [node for node in session.hub.view.media_nodes() if node != here]
        try:
            return await session.ctx.nodes.place(session.room_key, others, [here], is_relief=is_relief)
        except NoCapacityError:
            return ""

    async def _carry_in_turn(self, carrier: Carrier, target: str) -> None:
        """Publishers first: beside its own a player would wait for a second key frame, which is not made at once."""
        hub = self._session.hub
        if not self._session.publisher.publications:
            await hub.wait_led()
            await self._carry_or_end(carrier, target)
            return
        with hub.leading():
            await self._carry_or_end(carrier, target)
            if carrier.former is not None:
                await asyncio.sleep(_FOLLOW_S)

    async def _carry_or_end(self, carrier: Carrier, target: str) -> None:
        session, former_node = self._session, self._session.leg.node_id
        result = await self._carry(carrier, target) if can_carry(session) else "unable"
        session.ctx.metrics.carries.labels(result).inc()
        _log.info("a client was to follow", from_node=former_node, to_node=session.leg.node_id, result=result)
        if beside := carrier.beside():
            self._left.append(beside)
        if result == "followed" and carrier.former is not None:
            session.spawn(self._finish(*carrier.former, self._connected))
        elif result != "no_room":
            session.owner.end_soon(session, common_pb2.LEAVE_REASON_SERVER_SHUTDOWN)

    async def _carry(self, carrier: Carrier, target: str) -> str:
        """How it ended, as `mrtc_signaling_carries_total` says it."""
        try:
            await carrier.meet(target)
            self._connected = asyncio.Event()
            await carrier.go_over()
        except NoCapacityError:
            return "no_room"
        except StayedError:
            return "stayed"
        except MrtcError as error:
            _log.warning("a transport was not carried over", code=error.code_name(), error=error.message)
            return "failed"
        self._connected.set()
        return "followed"

    async def _finish(self, node_id: str, transport_id: str, connected: asyncio.Event) -> None:
        session = self._session
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await connected.wait()
            await session.show_media()
            _log.info("media moved", from_node=node_id, to_node=session.leg.node_id)
        await asyncio.sleep(_LINGER_S)
        await close_transport(session.ctx, node_id, transport_id)
        with contextlib.suppress(ValueError):
            self._left.remove((node_id, transport_id))
