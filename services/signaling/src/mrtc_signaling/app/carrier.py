"""Takes the transport of a WHIP or WHEP session to another node, which calls the client; the session stays as it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mrtc_common.errors import FailedPreconditionError
from mrtc_common.log import get_logger

from .transport_leg import Place

if TYPE_CHECKING:
    from .session import Session

_log = get_logger(__name__)


class StayedError(Exception):
    """The client did not come over; its former node sends still, and nothing was given up."""


class Carrier:
    """Carries one session's transport.

    The other node meets the client first, while the former one goes on as ever. When the client sends there, the former
    node lets go, the other one goes on from its last state, and the room is shown where its media is now: not before,
    since many clients stay, and who joins meanwhile needs what comes. An ICE restart (`PATCH`) of the meantime is
    answered by the other node, so it leads there too.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def can_carry(self) -> bool:
        """True if it may work: SCTP lives in DTLS, so data channels cannot go along."""
        offer = self._session.record.http.offer
        return self._session.ctx.options.carry_timeout_s > 0 and bool(offer) and "m=application" not in offer

    async def meet(self, target: str) -> Place:
        """Opens the transport on another node, which calls the client; returns what is left behind.

        Raises MrtcError; then nothing has changed.
        """
        session, leg = self._session, self._session.leg
        async with session.request_lock:
            if not leg.is_open:
                raise FailedPreconditionError("the transport was lost meanwhile")
            former = (leg.node_id, leg.transport_id)
            state = await (await leg.node()).export_transport(leg.transport_id, is_final=False)
            async with leg.lock:
                nodes, offer = session.hub.view.media_nodes(), session.record.http.offer
                await leg.open(offer, nodes, session.caps, away=True, first=target, state=state)
                session.subscriber.lost()
                session.subscriber.renegotiated()
        return former

    async def prepare(self) -> None:
        """Makes tracks and subscriptions on the new transport. Raises MrtcError."""
        session, publisher = self._session, self._session.publisher
        async with session.request_lock:
            async with session.leg.lock:
                tracks = [track for record in publisher.publications.values() for track in record.publication.tracks]
                await publisher.move_to_new_transport({track.id: track.mid for track in tracks})
            await session.subscriber.apply()

    async def go_over(self, former: Place, came: asyncio.Event) -> None:
        """The new node goes on once the client sends there.

        Raises StayedError, and MrtcError: then perhaps no node has the client.
        """
        session = self._session
        try:
            async with asyncio.timeout(session.ctx.options.carry_timeout_s):
                await came.wait()
        except TimeoutError:
            raise StayedError from None
        async with session.request_lock:
            publications = list(session.publisher.publications.values())
            # The room can be shown again later; what was passed on is another node's for good.
            passed, shown = await asyncio.gather(
                self._pass_on(former), session.publisher.write(publications), return_exceptions=True
            )
            if isinstance(passed, BaseException):
                raise passed
            if isinstance(shown, BaseException):
                _log.warning("who moved is not shown yet", error=str(shown))
            # Not before: an instance that took the session over until now would go on with the former transport.
            session.media_is_back()
        session.owner.save_soon(session)

    async def _pass_on(self, former: Place) -> None:
        leg = self._session.leg
        former_node, node = await self._session.ctx.nodes.node(former[0]), await leg.node()
        # From here until the answer nothing is sent to the client, and what it sends waits at the new node.
        state = await former_node.export_transport(former[1], is_final=True)
        await node.complete_transport(leg.transport_id, state)
