"""What the node does on request: transports, tracks, subscriptions, over the engine and the relays."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mrtc.common.v1 import common_pb2
from mrtc.media.v1 import media_service_pb2 as pb
from mrtc_common.engine_errors import engine_errors
from mrtc_common.errors import (
    AlreadyExistsError,
    BadRequestError,
    LimitExceededError,
    MrtcError,
    NoCapacityError,
    PublicationNotFoundError,
    TransportNotFoundError,
)
from mrtc_common.ids import is_id
from mrtc_common.log import get_logger
from mrtc_common.relay import RelayManager
from mrtc_common.relay_types import track_to_proto
from mrtc_common.subjects import parse_room_key

from .config import McuSettings
from .core.transports import TrackState, Transports, TransportState, offer_hash
from .core.watchers import Watcher, Watchers
from .figures import McuFigures
from .handovers import Handovers
from .ports import Engine
from .subscriptions import Subscriptions

_log = get_logger(__name__)

_MAX_OFFER_BYTES = 512 * 1024
_RETRY_AFTER_MS = 1000
# Transports whose figures an engine worker writes at a time: below a millisecond also if each has dozens of slots.
_STATS_BATCH = 32
_MAX_DATA_PEERS = 1_000


class Media:
    """The node's transports. Every method is idempotent and safe to call at the same time as any other."""

    def __init__(
        self,
        engine: Engine,
        relays: RelayManager,
        settings: McuSettings,
        figures: McuFigures,
        node_id: str,
        is_draining: Callable[[], bool],
        make_subscription: Callable[..., Any],
    ) -> None:
        self._engine = engine
        self._relays = relays
        self._settings = settings
        self._figures = figures
        self._is_draining = is_draining
        self._opening: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.transports = Transports()
        self.watchers = Watchers()
        self.handovers = Handovers(engine, self.transports, settings.cluster_secret.get_secret_value())
        self.subscriptions = Subscriptions(engine, relays, self.transports, self.watchers, node_id, make_subscription)

    # Transports

    async def create_transport(self, request: pb.CreateTransportRequest) -> pb.CreateTransportResponse:
        """Opens a transport. Raises NoCapacityError, BadOfferError, AlreadyExistsError."""
        parse_room_key(request.room_key)
        if not is_id(request.transport_id) or not is_id(request.participant_id):
            raise BadRequestError("transport_id and participant_id must be ids")
        _check_offer(request.offer)
        lock = self._opening.setdefault(request.transport_id, asyncio.Lock())
        try:
            async with lock:
                known = self.transports.find(request.transport_id)
                if known is None:
                    known = await self._open(request)
                elif known.offer_hash != offer_hash(request.offer) or known.room_key != request.room_key:
                    raise AlreadyExistsError("this transport exists with another offer or in another room")
                reply = _unpacked(known.answer)
                return pb.CreateTransportResponse(answer=reply.answer, lines=reply.lines)
        finally:
            self._opening.pop(request.transport_id, None)

    async def negotiate_transport(self, request: pb.NegotiateTransportRequest) -> pb.NegotiateTransportResponse:
        """Answers a later offer. Raises TransportNotFoundError, BadOfferError."""
        _check_offer(request.offer)
        state = self.transports.get(request.transport_id)
        async with state.lock:
            digest = offer_hash(request.offer)
            if digest != state.offer_hash:
                with engine_errors():
                    answer = await self._engine.negotiate(transport=state.transport_id, offer=request.offer)
                    await self._allow_data(state, request.offer)
                state.answer, state.offer_hash = _packed(answer), digest
            return _unpacked(state.answer)

    async def close_transport(self, transport_id: str, reason: str = "closed") -> None:
        """Ends a transport; no error if it does not exist."""
        state = self.transports.remove(transport_id, reason)
        if state is None:
            return
        self._closed(state, reason)
        with engine_errors():
            await self._engine.close_transport(transport=transport_id)

    async def _open(self, request: pb.CreateTransportRequest) -> TransportState:
        if self._is_draining():
            raise NoCapacityError("this node is draining", retry_after_ms=_RETRY_AFTER_MS)
        if len(self.transports) >= self._settings.max_transports:
            raise NoCapacityError("this node is full", retry_after_ms=_RETRY_AFTER_MS)
        state = TransportState(request.transport_id, request.room_key, request.participant_id)
        state.identity, state.can_publish_data = request.identity, request.can_publish_data
        # Known before the engine's first event about it can come.
        self.transports.add(state)
        try:
            with engine_errors():
                answer = await self._answer(request)
                await self._allow_data(state, request.offer)
        except LimitExceededError as error:
            self.transports.remove(request.transport_id, "refused")
            raise NoCapacityError(error.message, retry_after_ms=_RETRY_AFTER_MS) from error
        except BaseException:
            self.transports.remove(request.transport_id, "refused")
            raise
        state.answer, state.offer_hash = _packed(answer), offer_hash(request.offer)
        return state

    async def _answer(self, request: pb.CreateTransportRequest) -> Any:
        caps = {
            "max_egress_bps": request.max_egress_bps,
            "max_ingress_bps": request.max_ingress_bps,
            "max_track_bps": request.max_track_bps,
        }
        if request.state:
            return await self.handovers.take(request, caps)
        return await self._engine.create_transport(
            transport=request.transport_id, room=request.room_key, offer=request.offer, **caps
        )

    async def _allow_data(self, state: TransportState, offer: str) -> None:
        """Opens the data channels of an offer that has some; a client without them costs no command."""
        if state.identity and "m=application" in offer:
            state.has_data = True
            await self._engine.set_data_access(
                transport=state.transport_id, identity=state.identity, can_publish=state.can_publish_data
            )

    async def set_data_peers(self, transport_id: str, node_ids: Sequence[str]) -> None:
        """Brings data messages of the room's participants on other nodes here. Raises TransportNotFoundError."""
        state = self.transports.get(transport_id)
        if len(node_ids) > _MAX_DATA_PEERS or not all(is_id(node) for node in node_ids):
            raise BadRequestError(f"node_ids must be at most {_MAX_DATA_PEERS} ids")
        state.data_peers = frozenset(node_ids)
        await self._settle_data(state.room_key)

    async def _settle_data(self, room_key: str) -> None:
        await self._relays.set_data(room_key, self.transports.data_peers(room_key))

    def _closed(self, state: TransportState, reason: str) -> None:
        self._figures.transports_closed.labels(reason).inc()
        self.subscriptions.release_all(state)
        if state.data_peers:
            self._spawn(self._settle_data(state.room_key))
        closed = pb.TransportClosed(reason=reason)
        self.watchers.publish(pb.WatchTransportsResponse(transport_id=state.transport_id, closed=closed))

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine, name="media")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Tracks

    async def publish_tracks(self, transport_id: str, tracks: Sequence[common_pb2.Track]) -> list[common_pb2.Track]:
        """Makes tracks of m-lines; a track that exists on another transport of this node moves over."""
        state = self.transports.get(transport_id)
        for track in tracks:
            if not is_id(track.id) or not track.mid:
                raise BadRequestError("every track needs an id and a mid")
        if len(state.tracks.keys() | {track.id for track in tracks}) > self._settings.max_tracks_per_transport:
            raise LimitExceededError(f"at most {self._settings.max_tracks_per_transport} tracks per transport")
        async with state.lock:
            return [await self._publish(state, track) for track in tracks]

    async def unpublish_tracks(self, transport_id: str, track_ids: Iterable[str]) -> None:
        """Ends tracks of a transport; others are left alone."""
        for track_id in track_ids:
            owner = self.transports.owner_of(track_id)
            if owner is None or owner.transport_id != transport_id:
                continue
            async with owner.lock:
                self.transports.remove_track(track_id)
                with engine_errors():
                    await self._engine.unpublish_track(track=track_id)

    async def mute_track(self, transport_id: str, track_id: str, is_muted: bool) -> None:
        """Mutes or unmutes. Raises PublicationNotFoundError."""
        state = self.transports.get(transport_id)
        async with state.lock:
            known = _published(state, track_id)
            with engine_errors():
                await self._engine.set_track_muted(track=track_id, is_muted=is_muted)
            known.track.is_muted = is_muted

    async def set_caps(self, request: pb.SetCapsRequest) -> None:
        """Changes what a transport is sent and sends at most. Raises TransportNotFoundError."""
        state = self.transports.get(request.transport_id)
        async with state.lock:
            with engine_errors():
                await self._engine.set_caps(
                    transport=state.transport_id,
                    max_egress_bps=request.max_egress_bps,
                    max_ingress_bps=request.max_ingress_bps,
                    max_track_bps=request.max_track_bps,
                )

    async def set_track_cap(self, transport_id: str, track_id: str, max_bps: int) -> None:
        """Changes what a track sends at most. Raises PublicationNotFoundError."""
        state = self.transports.get(transport_id)
        async with state.lock:
            known = _published(state, track_id)
            with engine_errors():
                await self._engine.set_track_cap(track=track_id, max_bps=max_bps)
            known.track.max_bitrate_bps = max_bps

    async def _publish(self, state: TransportState, track: common_pb2.Track) -> common_pb2.Track:
        known = state.tracks.get(track.id)
        if known is not None and known.track.mid == track.mid:
            return known.track
        moves = self.transports.owner_of(track.id) is not None or self._relays.origin_of(track.id) is not None
        if moves:
            await self._make_way(track.id)
        with engine_errors():
            info = await self._engine.publish_track(track=track.id, transport=state.transport_id, mid=track.mid)
            if track.is_muted:
                await self._engine.set_track_muted(track=track.id, is_muted=True)
            if track.max_bitrate_bps:
                await self._engine.set_track_cap(track=track.id, max_bps=track.max_bitrate_bps)
        if self.transports.find(state.transport_id) is not state:
            raise TransportNotFoundError(f"no such transport: {state.transport_id}")
        made = common_pb2.Track()
        made.CopyFrom(track)
        described = track_to_proto(info)
        made.kind, made.codec = described.kind, described.codec
        if not made.layers:
            made.layers.extend(described.layers)
        self.transports.add_track(state, made)
        self.subscriptions.track_changed(track.id)
        return made

    async def _make_way(self, track_id: str) -> None:
        """The same track is here already, from the participant's former transport or over a relay: that one ends."""
        await self._relays.drop_track(track_id)
        if self.transports.remove_track(track_id) is not None:
            with engine_errors():
                await self._engine.unpublish_track(track=track_id)

    # Events and figures

    def watch(self, transport_ids: Sequence[str]) -> Watcher:
        """A watcher that is first offered the present state."""
        watcher = self.watchers.add(transport_ids)
        for transport_id, reason in self.transports.closed.items():
            closed = pb.TransportClosed(reason=reason)
            watcher.offer(pb.WatchTransportsResponse(transport_id=transport_id, closed=closed))
        for state in self.transports:
            for event in _present_state(state):
                watcher.offer(event)
        return watcher

    def handle_event(self, event: Any) -> None:
        """Takes an event of the engine."""
        self._relays.handle_event(event)
        match type(event).__name__.rpartition("_")[2]:
            case "TransportConnected":
                self._connected(event.transport)
            case "TransportClosed":
                state = self.transports.remove(event.transport, event.reason)
                if state is not None:
                    self._closed(state, event.reason)
            case "TrackStarted":
                self._track_started(event.track, event.codec)
            case "SlotsChanged":
                self.subscriptions.slots_changed(event.transport, event.slots, event.version)
            case "LayersWanted":
                self._layers_wanted(event.track, event.rids, event.spatial_layers)

    async def stats(self, transport_ids: Sequence[str]) -> str:
        """JSON of the engine, of these transports or of all; asked for in batches, so that no worker is held up."""
        wanted = list(transport_ids) or [state.transport_id for state in self.transports]
        found: list[Any] = []
        for start in range(0, len(wanted), _STATS_BATCH):
            with engine_errors():
                answer = await self._engine.stats(transports=wanted[start : start + _STATS_BATCH])
            found += answer.get("transports", [])
        return json.dumps({"transports": [self._named(transport) for transport in found]})

    async def dump_room(self, room_key: str) -> str:
        """JSON of the engine, with whose transports they are and between which nodes tracks cross."""
        parse_room_key(room_key)
        with engine_errors():
            dump = await self._engine.dump_room(room=room_key)
        named = {
            "transports": [self._named(transport) for transport in dump.get("transports", [])],
            "relays": [one | {"node_id": self._relays.node_of_relay(one["id"])} for one in dump.get("relays", [])],
            "tracks": [track | self._edges(track["id"]) for track in dump.get("tracks", [])],
        }
        return json.dumps(dump | named)

    def _edges(self, track_id: str) -> dict[str, Any]:
        return {
            "origin_node_id": self._relays.origin_of(track_id),
            "from_node_id": self._relays.source_of(track_id),
            "to_node_ids": self._relays.server.receivers_of(track_id),
        }

    def _named(self, transport: dict[str, Any]) -> dict[str, Any]:
        """A transport's figures with whose it is, which the engine does not know."""
        state = self.transports.find(transport["id"])
        if state is None:
            return transport
        return {"participant_id": state.participant_id, "identity": state.identity} | transport

    def abandon(self) -> None:
        """Ends every transport because the others took this node for dead: its clients are elsewhere."""
        self._spawn(self._close_each("node_lost"))

    async def close_all(self, reason: str) -> None:
        """Ends every transport, for the end of the process."""
        await self._close_each(reason)
        self.watchers.end()

    async def _close_each(self, reason: str) -> None:
        for state in self.transports:
            try:
                await self.close_transport(state.transport_id, reason)
            except MrtcError as error:
                _log.debug("a transport could not be closed", error=error.message)

    def _connected(self, transport_id: str) -> None:
        state = self.transports.find(transport_id)
        if state is not None:
            state.is_connected = True
            connected = pb.TransportConnected()
            self.watchers.publish(pb.WatchTransportsResponse(transport_id=transport_id, connected=connected))

    def _track_started(self, track_id: str, codec: str) -> None:
        owner = self.transports.owner_of(track_id)
        if owner is not None:
            known = owner.tracks[track_id]
            known.is_started, known.track.codec = True, codec
            started = pb.TrackStarted(track_id=track_id, codec=codec)
            self.watchers.publish(pb.WatchTransportsResponse(transport_id=owner.transport_id, track_started=started))

    def _layers_wanted(self, track_id: str, rids: Sequence[str], spatial_layers: int) -> None:
        owner = self.transports.owner_of(track_id)
        if owner is not None:
            wanted = pb.LayersWanted(track_id=track_id, rids=rids, spatial_layers=spatial_layers)
            owner.tracks[track_id].wanted = wanted
            self.watchers.publish(pb.WatchTransportsResponse(transport_id=owner.transport_id, layers_wanted=wanted))


def _published(state: TransportState, track_id: str) -> TrackState:
    """Raises PublicationNotFoundError."""
    known = state.tracks.get(track_id)
    if known is None:
        raise PublicationNotFoundError(f"this transport publishes no track {track_id}")
    return known


def _packed(answer: Any) -> bytes:
    reply = pb.NegotiateTransportResponse(answer=answer.answer, lines=lines_to_proto(answer.lines))
    return zlib.compress(reply.SerializeToString())


def _unpacked(packed: bytes) -> pb.NegotiateTransportResponse:
    return pb.NegotiateTransportResponse.FromString(zlib.decompress(packed))


def lines_to_proto(lines: Iterable[Any]) -> list[pb.TransportLine]:
    """The engine's m-lines as protos write them."""
    kinds = {"audio": common_pb2.TRACK_KIND_AUDIO, "video": common_pb2.TRACK_KIND_VIDEO}
    return [
        pb.TransportLine(
            mid=line.mid, kind=kinds[line.kind], is_inbound=line.is_inbound, codecs=line.codecs, rids=line.rids
        )
        for line in lines
    ]


def _present_state(state: TransportState) -> Iterable[pb.WatchTransportsResponse]:
    if state.is_connected:
        yield pb.WatchTransportsResponse(transport_id=state.transport_id, connected=pb.TransportConnected())
    for track_id, known in state.tracks.items():
        if known.is_started:
            started = pb.TrackStarted(track_id=track_id, codec=known.track.codec)
            yield pb.WatchTransportsResponse(transport_id=state.transport_id, track_started=started)
        if known.wanted is not None:
            yield pb.WatchTransportsResponse(transport_id=state.transport_id, layers_wanted=known.wanted)


def _check_offer(offer: str) -> None:
    if not offer:
        raise BadRequestError("an SDP offer is needed")
    if len(offer.encode("utf-8", "surrogatepass")) > _MAX_OFFER_BYTES:
        raise BadRequestError(f"an SDP offer has at most {_MAX_OFFER_BYTES} bytes")
