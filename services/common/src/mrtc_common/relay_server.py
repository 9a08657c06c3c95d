"""The giving side of relays: other nodes open one to us and name the tracks they want."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from mrtc.media.v1 import relay_service_pb2 as pb
from mrtc.media.v1 import relay_service_pb2_grpc

from .clock import Clock
from .engine_errors import engine_errors
from .errors import (
    AlreadyExistsError,
    BadRequestError,
    LimitExceededError,
    MrtcError,
    NotFoundError,
    PublicationNotFoundError,
)
from .ids import is_id
from .log import get_logger
from .relay_tree import RelayTrees
from .relay_types import RelayEngine, RelayKey, checked_address, track_to_proto

_log = get_logger(__name__)

MAX_RELAYS = 1024
MAX_TRACKS_PER_REQUEST = 2048
MAX_DATA_ROOMS = 10_000
MAX_AVOIDED = 1024
_LOST_TIMEOUT_S = 60.0


@dataclass(slots=True)
class _Inbound:
    relay_id: str
    node_id: str
    lane: int = 0
    handles: dict[str, int] = field(default_factory=dict)
    data: dict[str, int] = field(default_factory=dict)
    lost_at: float | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class RelayServer(relay_service_pb2_grpc.RelayServiceServicer):
    """Serves `RelayService` from an engine. One relay per opening node and lane: a newer one replaces the older.

    Args:
        trees: which nodes take the tracks of this node, and from whom.
        source_of: the node that an imported track comes from; None: it begins here.
        arrival: waits for a track that this node is about to have itself.
    """

    def __init__(
        self,
        engine: RelayEngine,
        clock: Clock,
        trees: RelayTrees,
        source_of: Callable[[str], str | None],
        arrival: Callable[[str], Awaitable[None]],
    ) -> None:
        self._engine, self._clock = engine, clock
        self._trees, self._source_of, self._arrival = trees, source_of, arrival
        self._relays: dict[str, _Inbound] = {}

    @property
    def relay_count(self) -> int:
        """Relays that are open."""
        return len(self._relays)

    async def OpenRelay(self, request: pb.OpenRelayRequest, context: Any) -> pb.OpenRelayResponse:
        """Opens or re-keys."""
        if not is_id(request.relay_id) or not is_id(request.node_id):
            raise BadRequestError("relay_id and node_id must be ids")
        remote = checked_address(request.address)
        theirs = RelayKey.checked(request.key, request.salt)
        known = self._relays.get(request.relay_id)
        if known is not None and known.node_id != request.node_id:
            raise AlreadyExistsError("this relay belongs to another node")
        if known is None and len(self._relays) >= MAX_RELAYS:
            raise LimitExceededError(f"this node serves {MAX_RELAYS} relays already")
        relay = known or _Inbound(request.relay_id, request.node_id, request.lane)
        self._relays[request.relay_id] = relay
        ours = RelayKey.generate()
        async with relay.lock:
            with engine_errors():
                address = self._engine.relay_address(request.relay_id)
                await self._engine.open_relay(
                    relay=request.relay_id,
                    remote=remote,
                    tx_key=ours.key,
                    tx_salt=ours.salt,
                    rx_key=theirs.key,
                    rx_salt=theirs.salt,
                )
            relay.lost_at = None
        same = (request.node_id, relay.lane)
        for older in [r for r in self._relays.values() if (r.node_id, r.lane) == same and r is not relay]:
            await self._close(older)
        _log.info("relay opened to us", relay=request.relay_id, by=request.node_id)
        return pb.OpenRelayResponse(address=address, key=ours.key, salt=ours.salt)

    async def StartTracks(self, request: pb.StartTracksRequest, context: Any) -> pb.StartTracksResponse:
        """Lets tracks flow; a repeated request has no second effect."""
        if len(request.tracks) > MAX_TRACKS_PER_REQUEST:
            raise LimitExceededError(f"at most {MAX_TRACKS_PER_REQUEST} tracks at once")
        if len(request.avoid_node_ids) > MAX_AVOIDED:
            raise LimitExceededError(f"at most {MAX_AVOIDED} nodes to avoid")
        relay = self._relay(request.relay_id)
        response = pb.StartTracksResponse()
        async with relay.lock:
            for track in request.tracks:
                if not track.track_id or not track.handle:
                    raise BadRequestError("every track needs an id and a handle that is not 0")
                await self._arrival(track.track_id)
                try:
                    if parent := self._redirect(relay, track.track_id, request):
                        if relay.handles.pop(track.track_id, None) is not None:
                            await self._unexport(relay.relay_id, track.track_id)
                        response.redirects.append(pb.RelayRedirect(track_id=track.track_id, node_id=parent))
                        continue
                    info = await self._export(relay, track.track_id, track.handle)
                except PublicationNotFoundError:
                    response.missing_track_ids.append(track.track_id)
                    self._trees.forget_track(track.track_id)
                except MrtcError:
                    self._trees.leave(relay.node_id, [track.track_id])
                    raise
                else:
                    response.tracks.append(track_to_proto(info))
        return response

    async def StopTracks(self, request: pb.StopTracksRequest, context: Any) -> pb.StopTracksResponse:
        """Stops tracks."""
        relay = self._relays.get(request.relay_id)
        if request.node_id:
            self._trees.leave(request.node_id, request.track_ids)
        if relay is not None:
            async with relay.lock:
                for track_id in request.track_ids:
                    await self._stop(relay, track_id)
        return pb.StopTracksResponse()

    async def SetData(self, request: pb.SetDataRequest, context: Any) -> pb.SetDataResponse:
        """Lets the data messages of these rooms flow and stops those of all others."""
        if len(request.rooms) > MAX_DATA_ROOMS:
            raise LimitExceededError(f"at most {MAX_DATA_ROOMS} rooms with data on a relay")
        relay = self._relay(request.relay_id)
        wanted = {room.room_key: room.handle for room in request.rooms}
        if not all(wanted) or not all(wanted.values()):
            raise BadRequestError("every room needs a key and a handle that is not 0")
        async with relay.lock:
            with engine_errors():
                for room in relay.data.keys() - wanted.keys():
                    await self._engine.stop_data(relay=relay.relay_id, room=room)
                for room, handle in wanted.items():
                    if relay.data.get(room) != handle:
                        await self._engine.export_data(relay=relay.relay_id, room=room, handle=handle)
            relay.data = wanted
        return pb.SetDataResponse()

    async def CloseRelay(self, request: pb.CloseRelayRequest, context: Any) -> pb.CloseRelayResponse:
        """Ends a relay; no error if it does not exist."""
        relay = self._relays.get(request.relay_id)
        if relay is not None:
            await self._close(relay)
        return pb.CloseRelayResponse()

    def relay_up(self, relay_id: str) -> None:
        """The engine heard from the other node."""
        if relay := self._relays.get(relay_id):
            relay.lost_at = None

    def relay_lost(self, relay_id: str) -> None:
        """The engine hears nothing any more; the relay is closed if that lasts."""
        if (relay := self._relays.get(relay_id)) and relay.lost_at is None:
            relay.lost_at = self._clock.monotonic()

    async def close_of_node(self, node_id: str) -> None:
        """Ends the relays of a node that is gone."""
        for relay in [relay for relay in self._relays.values() if relay.node_id == node_id]:
            await self._close(relay)
        self._trees.forget_node(node_id)

    def receivers_of(self, track_id: str) -> list[str]:
        """The nodes that take a track from here."""
        return sorted({relay.node_id for relay in self._relays.values() if track_id in relay.handles})

    @property
    def sent(self) -> frozenset[str]:
        """The tracks that other nodes take from here."""
        heard = [relay for relay in self._relays.values() if relay.lost_at is None]
        return frozenset(track_id for relay in heard for track_id in relay.handles)

    def node_of(self, relay_id: str) -> str | None:
        """Who opened a relay to us."""
        relay = self._relays.get(relay_id)
        return relay.node_id if relay is not None else None

    async def sweep(self) -> None:
        """Ends relays that have been lost for long; call about once a second."""
        limit = self._clock.monotonic() - _LOST_TIMEOUT_S
        for relay in [r for r in self._relays.values() if r.lost_at is not None and r.lost_at <= limit]:
            await self._close(relay)

    def _relay(self, relay_id: str) -> _Inbound:
        relay = self._relays.get(relay_id)
        if relay is None:
            raise NotFoundError("no such relay")
        return relay

    def _redirect(self, relay: _Inbound, track_id: str, request: pb.StartTracksRequest) -> str | None:
        """The node from which a track of this node is to be taken; None: from here. Raises PublicationNotFoundError."""
        source = self._source_of(track_id)
        if source == relay.node_id:
            # Both would wait for each other. It knows more than we do: ours comes from elsewhere soon.
            raise PublicationNotFoundError("it comes from there")
        if source is not None:
            return None
        return self._trees.place(
            track_id, relay.node_id, request.avoid_node_ids, takes_redirects=request.takes_redirects
        )

    async def _export(self, relay: _Inbound, track_id: str, handle: int) -> Any:
        with engine_errors():
            if relay.handles.get(track_id, handle) != handle:
                await self._unexport(relay.relay_id, track_id)
            try:
                with engine_errors():
                    info = await self._engine.export_track(relay=relay.relay_id, track=track_id, handle=handle)
            except AlreadyExistsError:
                # The track was published anew under its id since; begin anew as well.
                await self._unexport(relay.relay_id, track_id)
                info = await self._engine.export_track(relay=relay.relay_id, track=track_id, handle=handle)
        relay.handles[track_id] = handle
        return info

    async def _stop(self, relay: _Inbound, track_id: str) -> None:
        if relay.handles.pop(track_id, None) is not None:
            self._trees.leave(relay.node_id, [track_id])
        await self._unexport(relay.relay_id, track_id)

    async def _unexport(self, relay_id: str, track_id: str) -> None:
        try:
            with engine_errors():
                await self._engine.unexport_track(relay=relay_id, track=track_id)
        except (NotFoundError, PublicationNotFoundError):
            pass

    async def _close(self, relay: _Inbound) -> None:
        self._relays.pop(relay.relay_id, None)
        self._trees.leave(relay.node_id, list(relay.handles))
        async with relay.lock:
            with engine_errors():
                await self._engine.close_relay(relay=relay.relay_id)
        _log.info("relay closed", relay=relay.relay_id, by=relay.node_id)
