"""The taking side of one relay: this node opens it to one other node and imports tracks over it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mrtc.media.v1 import relay_service_pb2 as pb
from mrtc.media.v1 import relay_service_pb2_grpc

from .engine_errors import engine_errors
from .errors import AlreadyExistsError, MrtcError, NotFoundError, PublicationNotFoundError, UnavailableError
from .grpc import Channels, call
from .log import get_logger
from .relay_types import RelayedTrack, RelayEngine, RelayKey, checked_address, kind_name

_log = get_logger(__name__)

_RPC_TIMEOUT_S = 3.0


@dataclass(slots=True)
class Import:
    """A track that comes over a relay and who holds it.

    Args:
        origin: the node where it begins; the relay's other node may pass it on only.
        track: what it is; None while it does not flow.
        idle_since: when the last holder let go; None while held.
    """

    track_id: str
    room_key: str
    origin: str
    handle: int
    holders: set[str] = field(default_factory=set)
    track: RelayedTrack | None = None
    idle_since: float | None = None
    retry_at: float = 0.0
    retry_count: int = 0


class RelayClient:
    """A relay from this node to `node_id`, opened at first use; calls are serialised by `lock`.

    Args:
        address: of the other node's gRPC server.
        relay_id: decides which worker of the engine has it, at `own_address`.
        lane: 0 for the usual relay of two nodes; a newer one replaces the older of its lane.
    """

    def __init__(
        self,
        engine: RelayEngine,
        channels: Channels,
        *,
        own_node_id: str,
        node_id: str,
        address: str,
        relay_id: str,
        lane: int = 0,
    ) -> None:
        self._engine = engine
        self._stub = relay_service_pb2_grpc.RelayServiceStub(channels.get(address))
        self._own_node_id = own_node_id
        self.node_id = node_id
        self.relay_id = relay_id
        self.lane = lane
        with engine_errors():
            self.own_address = engine.relay_address(relay_id)
        self.lock = asyncio.Lock()
        self.imports: dict[str, Import] = {}
        # Tracks that come over another relay by now, and when they are to end here.
        self.formers: dict[str, float] = {}
        # Rooms whose data messages are wanted and their handles; and whether the other side knows all of it.
        self.data: dict[str, int] = {}
        self.is_data_told = True
        self.is_open = False
        self.is_lost = False
        self.retry_at = 0.0
        self.retry_count = 0
        self.idle_since: float | None = None
        self._next_handle = 1
        self._flowing: set[str] = set()

    def passes_on(self, item: Import) -> bool:
        """True if the other node is not where the track begins."""
        return item.origin != self.node_id

    def get_or_add(self, track_id: str, room_key: str, origin: str) -> Import:
        """The import of a track; a new one does not flow yet."""
        found = self.imports.get(track_id)
        if found is None:
            found = self.imports[track_id] = Import(track_id, room_key, origin, self._next_handle)
            self._next_handle += 1
        return found

    async def start(
        self,
        imports: list[Import],
        *,
        moving: Collection[str] = (),
        avoid: Iterable[str] = (),
        takes_redirects: bool = True,
    ) -> dict[str, str]:
        """Makes these flow, opening the relay if need be; those that do not exist over there stay without `track`.

        So do those that are to be taken from another node: returns which, by track id. Raises UnavailableError if the
        other node does not answer. The caller holds `lock`.

        Args:
            moving: those that come over another relay of the same address until now, and go on.
            avoid: nodes that are no use as the other one.
        """
        if not self.is_open:
            await self._open()
        request = pb.StartTracksRequest(
            relay_id=self.relay_id,
            tracks=[pb.RelayTrack(track_id=item.track_id, handle=item.handle) for item in imports],
            takes_redirects=takes_redirects,
            avoid_node_ids=avoid,
        )
        try:
            response = await self._rpc(self._stub.StartTracks, request)
        except NotFoundError:
            # The other side forgot the relay (it was lost for long): open it again, same id, new keys.
            await self._open()
            response = await self._rpc(self._stub.StartTracks, request)
        found = {track.id: track for track in response.tracks}
        for item in imports:
            if self.imports.get(item.track_id) is item:  # else it was taken elsewhere meanwhile
                track = found.get(item.track_id)
                item.track = None if track is None else await self._import(item, track, item.track_id in moving)
        return {redirect.track_id: redirect.node_id for redirect in response.redirects}

    async def reopen(self) -> dict[str, str]:
        """After a loss: new keys, and everything flows again, but what `start` says. Raises UnavailableError.

        The caller holds `lock`.
        """
        await self._open()
        redirects = await self.start(list(self.imports.values())) if self.imports else {}
        if self.data:
            await self.tell_data()
        return redirects

    def want_data(self, room_key: str, is_wanted: bool) -> None:
        """Changes which rooms' data is to come; `tell_data` carries it out."""
        if is_wanted == (room_key in self.data):
            return
        if is_wanted:
            self.data[room_key] = self._next_handle
            self._next_handle += 1
        else:
            del self.data[room_key]
        self.is_data_told = False

    async def tell_data(self) -> None:
        """Carries out what `want_data` changed. Raises UnavailableError. The caller holds `lock`."""
        if not self.is_open:
            await self._open()
        wanted = dict(self.data)
        with engine_errors():
            for room_key in self._flowing - wanted.keys():
                await self._engine.stop_data(relay=self.relay_id, room=room_key)
            for room_key, handle in wanted.items():
                await self._engine.import_data(relay=self.relay_id, room=room_key, handle=handle)
        self._flowing = set(wanted)
        rooms = [pb.RelayRoom(room_key=room_key, handle=handle) for room_key, handle in wanted.items()]
        request = pb.SetDataRequest(relay_id=self.relay_id, rooms=rooms)
        try:
            await self._rpc(self._stub.SetData, request)
        except NotFoundError:
            await self._open()
            await self._rpc(self._stub.SetData, request)
        self.is_data_told = wanted == self.data

    async def stop(self, track_ids: list[str]) -> None:
        """Ends imports. The caller holds `lock`."""
        for track_id in track_ids:
            self.imports.pop(track_id, None)
            with engine_errors():
                await self._engine.unpublish_track(track=track_id)
        if self.is_open:
            with contextlib.suppress(MrtcError):
                await self.leave(track_ids)

    async def end_formers(self, now: float) -> None:
        """Has what comes over another relay by now not come over this one any more. The caller holds `lock`."""
        due = [track_id for track_id, at in self.formers.items() if now >= at]
        for track_id in due:
            del self.formers[track_id]
        due = [track_id for track_id in due if track_id not in self.imports]
        if not due or not self.is_open:
            return
        for track_id in due:
            with engine_errors():
                await self._engine.unexport_track(relay=self.relay_id, track=track_id)
        with contextlib.suppress(MrtcError):
            await self._rpc(self._stub.StopTracks, pb.StopTracksRequest(relay_id=self.relay_id, track_ids=due))

    async def leave(self, track_ids: Collection[str]) -> None:
        """Tells the other node that these are not taken any more, from there or from who passes them on.

        Raises UnavailableError.
        """
        await self._rpc(
            self._stub.StopTracks,
            pb.StopTracksRequest(relay_id=self.relay_id, track_ids=track_ids, node_id=self._own_node_id),
        )

    async def close(self, *, tell: bool = True) -> None:
        """Ends the relay and all imports. The caller holds `lock`."""
        was_open, self.is_open = self.is_open, False
        self.imports.clear()
        self.formers.clear()
        self._flowing.clear()
        self.is_data_told = not self.data
        if not was_open:
            return
        with engine_errors():
            await self._engine.close_relay(relay=self.relay_id)
        if tell:
            with contextlib.suppress(MrtcError):
                await call(self._stub.CloseRelay, pb.CloseRelayRequest(relay_id=self.relay_id), timeout_s=1, retries=0)
        _log.info("relay closed by us", relay=self.relay_id, to=self.node_id)

    async def _open(self) -> None:
        ours = RelayKey.generate()
        response = await self._rpc(
            self._stub.OpenRelay,
            pb.OpenRelayRequest(
                relay_id=self.relay_id,
                node_id=self._own_node_id,
                address=self.own_address,
                key=ours.key,
                salt=ours.salt,
                lane=self.lane,
            ),
        )
        theirs = RelayKey.checked(response.key, response.salt)
        with engine_errors():
            await self._engine.open_relay(
                relay=self.relay_id,
                remote=checked_address(response.address),
                tx_key=ours.key,
                tx_salt=ours.salt,
                rx_key=theirs.key,
                rx_salt=theirs.salt,
            )
        self.is_open, self.is_lost = True, False
        _log.info("relay opened by us", relay=self.relay_id, to=self.node_id)

    async def _import(self, item: Import, track: Any, is_moving: bool) -> RelayedTrack:
        rids = [layer.rid for layer in track.layers if layer.rid]
        imported = RelayedTrack(item.track_id, kind_name(track.kind), track.codec, tuple(rids))
        if is_moving and await self._move(item):
            return imported
        wanted: Mapping[str, Any] = {
            "relay": self.relay_id,
            "track": item.track_id,
            "room": item.room_key,
            "handle": item.handle,
            "codec": track.codec,
            "rids": rids,
        }
        with engine_errors():
            try:
                with engine_errors():
                    await self._engine.import_track(**wanted)
            except AlreadyExistsError:
                # Left over from an earlier origin of the same track.
                await self._engine.unpublish_track(track=item.track_id)
                await self._engine.import_track(**wanted)
        return imported

    async def _move(self, item: Import) -> bool:
        """Has a track that is here come over this relay. False if it ended meanwhile."""
        try:
            with engine_errors():
                await self._engine.move_import(relay=self.relay_id, track=item.track_id, handle=item.handle)
        except MrtcError as error:
            _log.debug("a track cannot go on", track=item.track_id, error=error.message)
            return False
        return True

    async def _rpc(self, method: Any, request: Any) -> Any:
        try:
            # Whoever wants a track asks again soon, and by then may know of another node that has it.
            return await call(method, request, timeout_s=_RPC_TIMEOUT_S, retries=0)
        except (NotFoundError, PublicationNotFoundError, UnavailableError):
            raise
        except MrtcError as error:
            raise UnavailableError(f"node {self.node_id} refused a relay: {error.message}") from error
