"""Takes the transport of a WHIP or WHEP session to another node, which calls the client; the session stays as it is."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from mrtc_common.errors import FailedPreconditionError, UnavailableError
from mrtc_common.log import get_logger

from mrtc_signaling.ports import MediaNodeLost, TransportEvent

from .transport_leg import Place, TransportLeg

if TYPE_CHECKING:
    from .session import Session

_log = get_logger(__name__)


class StayedError(Exception):
    """The client did not come over; its former node goes on, and nothing was given up."""


class Carrier:
    """Carries one session's transport.

    The other node meets the client first, while the former one goes on as ever and is told of all that changes in the
    room. When the client sends there, the session goes over: tracks and subscriptions are made there, the former node
    lets go, the other one goes on from its last state, and the room is shown where the media is now. An ICE restart
    (`PATCH`) of the meantime is answered by the other node, so it leads there too.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._came = asyncio.Event()
        self._is_lost = False
        # On the node that calls; without a transport before and after.
        self.leg = TransportLeg(
            session.ctx,
            session.room_key,
            session.participant_id,
            self._on_event,
            identity=session.identity,
            can_publish_data=False,
        )
        # What the session left.
        self.former: Place | None = None

    def beside(self) -> Place | None:
        """The transport that there is beside the session's own."""
        return (self.leg.node_id, self.leg.transport_id) if self.leg.transport_id else self.former

    async def meet(self, target: str) -> None:
        """Opens the transport on another node, which calls the client. Raises MrtcError; then nothing has changed."""
        session, leg = self._session, self._session.leg
        async with session.request_lock:
            if not leg.is_open:
                raise FailedPreconditionError("the transport was lost meanwhile")
            state = await (await leg.node()).export_transport(leg.transport_id, is_final=False)
            nodes, offer = session.hub.view.media_nodes(), session.record.http.offer
            await self.leg.open(offer, nodes, session.caps, away_from=leg.node_id, first=target, state=state)

    async def go_over(self) -> None:
        """The session goes over once its client sends at the other node.

        Raises StayedError: nothing has changed, and nobody calls any more; MrtcError: perhaps no node has the client.
        """
        session = self._session
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(session.ctx.options.carry_timeout_s):
                await self._came.wait()
        async with session.request_lock:
            if not self._came.is_set() or not session.leg.is_open:
                await self.leg.close()
                raise StayedError
            if self._is_lost:
                raise UnavailableError("the other node is gone")
            await self._take_leg()
            publications = list(session.publisher.publications.values())
            # The room can be shown again later; what was passed on is another node's for good.
            passed, shown = await asyncio.gather(
                self._pass_on(), session.publisher.write(publications), return_exceptions=True
            )
            if isinstance(passed, BaseException):
                raise passed
            if isinstance(shown, BaseException):
                _log.warning("who moved is not shown yet", error=str(shown))
            # Not before: an instance that took the session over until now would go on with the former transport.
            session.media_is_back()
        session.owner.save_soon(session)

    async def revive(self, state: bytes) -> None:
        """Goes on from a checkpoint at another node, which calls the client; the session's own node is dead.

        Returns when the room knows; `connected` tells that the client follows. Raises MrtcError: the media is lost.
        """
        session, dead_node = self._session, self._session.leg.node_id
        async with session.request_lock:
            nodes = [node for node in session.hub.view.media_nodes() if node != dead_node]
            offer = session.record.http.offer
            await self.leg.open(offer, nodes, session.caps, away_from=dead_node, state=state, is_checkpoint=True)
            await self._take_leg()
            session.media_is_back()
            try:
                await session.publisher.write(list(session.publisher.publications.values()))
            except UnavailableError as error:
                _log.warning("who went on is not shown yet", error=error.message)
        session.owner.save_soon(session)
        if self._came.is_set():
            session.mover.connected()

    async def _take_leg(self) -> None:
        """The former node goes on meanwhile; what the client sends waits at the new one."""
        session, leg, publisher = self._session, self._session.leg, self._session.publisher
        async with leg.lock:
            self.former = (leg.node_id, leg.transport_id)
            leg.take(self.leg)
            session.subscriber.lost()
            session.subscriber.renegotiated()
            tracks = [track for record in publisher.publications.values() for track in record.publication.tracks]
            await publisher.move_to_new_transport({track.id: track.mid for track in tracks})
        await session.subscriber.apply()

    async def _pass_on(self) -> None:
        assert self.former is not None
        leg = self._session.leg
        former_node, node = await self._session.ctx.nodes.node(self.former[0]), await leg.node()
        # From here until the answer nothing is sent to the client.
        state = await former_node.export_transport(self.former[1], is_final=True)
        await node.complete_transport(leg.transport_id, state)

    def _on_event(self, event: TransportEvent) -> None:
        if isinstance(event, MediaNodeLost) or event.WhichOneof("event") == "closed":
            self._is_lost = True
        elif event.WhichOneof("event") != "connected":
            return
        self._came.set()


def can_carry(session: Session) -> bool:
    """True if it may work: SCTP lives in DTLS, so data channels cannot go along."""
    offer = session.record.http.offer
    return session.ctx.options.carry_timeout_s > 0 and bool(offer) and "m=application" not in offer
