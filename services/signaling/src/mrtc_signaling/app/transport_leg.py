"""The one transport of a session: placed on a node, negotiated, watched, replaced when it is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from mrtc.media.v1 import media_service_pb2
from mrtc_common.errors import (
    FailedPreconditionError,
    MrtcError,
    NoCapacityError,
    TransportNotFoundError,
    UnavailableError,
)
from mrtc_common.ids import new_id
from mrtc_common.log import get_logger

from mrtc_signaling.core.caps import Caps
from mrtc_signaling.ports import MediaNode, TransportEvent

from .context import Context

_log = get_logger(__name__)

Place = tuple[str, str]
"""Ids of a node and of a transport there."""

Lines = dict[str, media_service_pb2.TransportLine]
"""Negotiated m-lines by mid."""


class TransportLeg:
    """Owns a session's transport on its node.

    Args:
        on_event: called with the transport's events, in order; never for a transport that was replaced.
    """

    def __init__(
        self,
        ctx: Context,
        room_key: str,
        participant_id: str,
        on_event: Callable[[TransportEvent], None],
        *,
        identity: str,
        can_publish_data: bool,
    ) -> None:
        self._ctx = ctx
        self._room_key = room_key
        self._participant_id = participant_id
        self._identity, self._can_publish_data = identity, can_publish_data
        self._on_event = on_event
        self.node_id = ""
        self.transport_id = ""
        self.lines: Lines = {}
        self.is_lost = False
        # Data channels are negotiated, or may be: an instance that takes a transport over does not know its offer.
        self.has_data = False
        # False: nothing was ever subscribed on this transport, so its slots are free without asking the node.
        self.has_subscriptions = False
        self._is_node_lost = False
        # One change of the transport at a time: negotiation and subscription must not overtake each other.
        self.lock = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """True if there is a transport that is not lost."""
        return bool(self.transport_id) and not self.is_lost

    async def node(self) -> MediaNode:
        """The node of the open transport. Raises TransportNotFoundError, UnavailableError."""
        if not self.is_open:
            raise TransportNotFoundError("there is no transport; negotiate with `new_transport`")
        return await self._ctx.nodes.node(self.node_id)

    async def open(
        self,
        offer: str,
        room_node_ids: Iterable[str],
        caps: Caps,
        *,
        away: bool = False,
        away_from: str = "",
        first: str = "",
        state: bytes = b"",
        is_checkpoint: bool = False,
    ) -> str:
        """Opens a transport on a node that has room, tries another when one fails; returns the answer.

        Raises NoCapacityError, UnavailableError, and what the node says about the offer; then the former transport is
        what it was.

        Args:
            away: not on the node of the present transport, which is left as it is.
            away_from: not on this node.
            first: the node to try first.
            state: of a transport elsewhere, as its node gave it: the client is called from the new node.
            is_checkpoint: it is one: no other node is tried when it is not sure that the first one did not take it.
        """
        excluded: list[str] = [self.node_id] if self._is_node_lost or away else []
        excluded += [away_from] if away_from else []
        room_nodes = list(room_node_ids)
        failure: MrtcError = NoCapacityError(retry_after_ms=1000)
        for _ in range(self._ctx.options.max_placements):
            node_id = first if first and first not in excluded else await self._place(room_nodes, excluded)
            request = media_service_pb2.CreateTransportRequest(
                transport_id=new_id("tp"),
                room_key=self._room_key,
                participant_id=self._participant_id,
                offer=offer,
                max_egress_bps=caps.egress_bps,
                max_ingress_bps=caps.ingress_bps,
                max_track_bps=caps.track_bps,
                identity=self._identity,
                can_publish_data=self._can_publish_data,
                state=state,
            )
            try:
                node = await self._ctx.nodes.node(node_id)
                response = await node.create_transport(request)
            except (UnavailableError, NoCapacityError) as error:
                if is_checkpoint and isinstance(error, UnavailableError):
                    raise
                _log.warning("a node did not open a transport, trying another", node_id=node_id, error=error.message)
                excluded.append(node_id)
                failure = error
                continue
            self._adopt(node_id, request.transport_id, response.lines)
            self.has_data = _has_data(offer)
            return response.answer
        raise failure

    async def _place(self, room_nodes: list[str], excluded: list[str]) -> str:
        try:
            return await self._ctx.nodes.place(self._room_key, room_nodes, excluded)
        except NoCapacityError:
            if excluded != [self.node_id] or not self._is_node_lost:
                raise
            # Only the node that was taken for lost is there: it may be back.
            excluded.clear()
            return await self._ctx.nodes.place(self._room_key, room_nodes, excluded)

    async def negotiate(self, offer: str) -> str:
        """Answers a later offer of the same transport."""
        node = await self.node()
        response = await node.negotiate_transport(
            media_service_pb2.NegotiateTransportRequest(transport_id=self.transport_id, offer=offer)
        )
        self._take_lines(response.lines)
        self.has_data |= _has_data(offer)
        return response.answer

    def attach(self, node_id: str, transport_id: str, lines: Iterable[media_service_pb2.TransportLine]) -> None:
        """Takes over a transport that another instance opened."""
        self._adopt(node_id, transport_id, lines)
        self.has_subscriptions = self.has_data = True
        self._ctx.nodes.refresh(node_id, transport_id)

    def take(self, other: TransportLeg) -> None:
        """Goes on with the transport of another leg, which has none then; what this leg had is left as it is."""
        node_id, transport_id, lines = other.node_id, other.transport_id, list(other.lines.values())
        other.detach()
        self._adopt(node_id, transport_id, lines)

    def lose(self, *, with_node: bool) -> None:
        """The transport is gone, or its whole node; the ids stay known until it is replaced."""
        self.is_lost, self._is_node_lost = True, with_node
        self._ctx.nodes.unlisten(self.transport_id)

    async def close(self) -> None:
        """Closes the transport on its node, if that can be reached; never raises."""
        node_id, transport_id, was_lost = self.node_id, self.transport_id, self.is_lost
        self.detach()
        if transport_id and not was_lost:
            await close_transport(self._ctx, node_id, transport_id)

    def detach(self) -> None:
        """Lets go of the transport without closing it."""
        if self.transport_id:
            self._ctx.nodes.unlisten(self.transport_id)
        self.node_id = self.transport_id = ""
        self.lines = {}
        self.is_lost = self._is_node_lost = False

    def line(self, mid: str) -> media_service_pb2.TransportLine:
        """A negotiated m-line on which the client sends. Raises FailedPreconditionError."""
        line = self.lines.get(mid)
        if line is None or not line.is_inbound:
            raise FailedPreconditionError(f"the offer has no m-line {mid!r} on which the client sends; negotiate first")
        return line

    def receivable_codecs(self, kind: int) -> tuple[str, ...]:
        """Codecs that the client's slots of a kind can receive."""
        codecs: dict[str, None] = {}
        for line in self.lines.values():
            if not line.is_inbound and line.kind == kind:
                codecs.update(dict.fromkeys(line.codecs))
        return tuple(codecs)

    def _adopt(self, node_id: str, transport_id: str, lines: Iterable[media_service_pb2.TransportLine]) -> None:
        if self.transport_id:
            self._ctx.nodes.unlisten(self.transport_id)
        self.node_id, self.transport_id, self.is_lost = node_id, transport_id, False
        self._is_node_lost = self.has_subscriptions = False
        self._take_lines(lines)

        def forward(event: TransportEvent) -> None:
            if self.transport_id == transport_id:
                self._on_event(event)

        self._ctx.nodes.listen(node_id, transport_id, forward)

    def _take_lines(self, lines: Iterable[media_service_pb2.TransportLine]) -> None:
        self.lines = {line.mid: line for line in lines}


def _has_data(offer: str) -> bool:
    return "m=application" in offer


async def close_transport(ctx: Context, node_id: str, transport_id: str) -> None:
    """Closes a transport; a node that cannot be reached ends it by itself when media stops."""
    if not node_id or not transport_id:
        return
    with contextlib.suppress(MrtcError):
        node = await ctx.nodes.node(node_id)
        await node.close_transport(transport_id)
