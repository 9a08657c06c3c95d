"""Relays of one engine node: serves other nodes, imports tracks from them, and mends what breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mrtc.node.v1.master_service_pb2 import Node

from .clock import Clock, SystemClock
from .engine_errors import engine_errors
from .errors import MrtcError, PublicationNotFoundError, UnavailableError
from .grpc import Channels
from .log import get_logger
from .node import NodeDirectory
from .relay_client import Import, RelayClient
from .relay_server import RelayServer
from .relay_types import RelayedTrack, RelayEngine
from .tasks import end_tasks, repeat

__all__ = ["ImportResult", "RelayEngine", "RelayManager", "RelayServer", "RelayedTrack"]

_log = get_logger(__name__)

_SWEEP_INTERVAL_S = 0.5
_TRACK_LINGER_S = 2.0  # a track let go is kept so long, since layouts flip back and forth
_RELAY_IDLE_S = 30.0
_RETRY_DELAYS_S = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What became of wanted tracks.

    Args:
        missing: not there (yet): retry when the room state changes, or after a moment.
        unreachable: their node does not answer; by track id.
    """

    tracks: dict[str, RelayedTrack] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unreachable: dict[str, MrtcError] = field(default_factory=dict)


class RelayManager:
    """Imports tracks by reference: a track is imported once, however many hold it, and let go after the last.

    Feed it the engine's events by `handle_event`. Register `server` (the RelayService) at the node's gRPC server.

    Args:
        on_changed: called with the id of an imported track that ended or came back; who uses it should look again.
    """

    def __init__(
        self,
        engine: RelayEngine,
        *,
        node_id: str,
        channels: Channels,
        directory: NodeDirectory,
        on_changed: Callable[[str], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._engine = engine
        self._node_id = node_id
        self._channels = channels
        self._directory = directory
        self._on_changed = on_changed
        self._clock = clock or SystemClock()
        self.server = RelayServer(engine, self._clock)
        self._clients: dict[str, RelayClient] = {}
        self._origins: dict[str, str] = {}
        # Nodes from which a room's data messages are wanted.
        self._data: dict[str, set[str]] = {}
        self._task: asyncio.Task[None] | None = None
        self._gone_nodes: set[str] = set()
        directory.on_gone(self._node_gone)

    @property
    def relay_count(self) -> int:
        """Relays in both directions."""
        return len(self._clients) + self.server.relay_count

    async def start(self) -> None:
        """Starts the caretaker."""
        self._task = asyncio.create_task(repeat(self._sweep, _SWEEP_INTERVAL_S, "relays"), name="relay-sweep")

    async def aclose(self) -> None:
        """Ends all relays that this node opened."""
        if self._task is not None:
            await end_tasks(self._task)
            self._task = None
        for client in list(self._clients.values()):
            async with client.lock:
                with contextlib.suppress(Exception):
                    await client.close()
        self._clients.clear()
        self._origins.clear()

    async def import_track(self, track_id: str, origin_node: str, room_key: str, *, holder: str = "") -> RelayedTrack:
        """Imports one track, or holds it once more. Raises PublicationNotFoundError, UnavailableError."""
        result = await self.import_tracks({track_id: origin_node}, room_key, holder=holder)
        if track_id in result.unreachable:
            raise result.unreachable[track_id]
        if track_id not in result.tracks:
            raise PublicationNotFoundError(f"node {origin_node} has no track {track_id}")
        return result.tracks[track_id]

    async def import_tracks(self, wanted: Mapping[str, str], room_key: str, *, holder: str = "") -> ImportResult:
        """Imports tracks of one room at once; `wanted` gives the origin node of each track id.

        What is missing is not held; what is there is held until `release_track` of the same holder.
        """
        by_node: dict[str, list[str]] = {}
        for track_id, node_id in wanted.items():
            if node_id != self._node_id:
                by_node.setdefault(node_id, []).append(track_id)
        result = ImportResult()
        await asyncio.gather(*(self._import(node, ids, room_key, holder, result) for node, ids in by_node.items()))
        return result

    def release_track(self, track_id: str, *, holder: str = "") -> None:
        """Lets a track go; it ends a moment after the last holder did. No error if it is not held."""
        client = self._clients.get(self._origins.get(track_id, ""))
        item = client.imports.get(track_id) if client is not None else None
        if item is not None:
            item.holders.discard(holder)
            if not item.holders and item.idle_since is None:
                item.idle_since = self._clock.monotonic()

    def origin_of(self, track_id: str) -> str | None:
        """The node that an imported track comes from; None if it is not imported."""
        return self._origins.get(track_id)

    async def drop_track(self, track_id: str) -> None:
        """Ends an import at once, whoever holds it: for a track whose publisher is moving to this very node."""
        client = self._clients.get(self._origins.pop(track_id, ""))
        if client is not None and track_id in client.imports:
            async with client.lock:
                await client.stop([track_id])

    async def set_data(self, room_key: str, node_ids: Iterable[str]) -> None:
        """Has a room's data messages come from exactly these nodes; the caretaker retries those that do not answer."""
        wanted = set(node_ids) - {self._node_id}
        self._data[room_key] = wanted
        if not wanted:
            del self._data[room_key]
        await self._settle_data()

    async def _settle_data(self) -> None:
        """Brings the relays in step with what is wanted; what fails is tried again by the caretaker."""
        for node_id in {node for nodes in self._data.values() for node in nodes} - self._clients.keys():
            with contextlib.suppress(MrtcError):
                await self._client(node_id)
        for client in list(self._clients.values()):
            rooms = {room for room, nodes in self._data.items() if client.node_id in nodes}
            for room in rooms | client.data.keys():
                client.want_data(room, room in rooms)
        await asyncio.gather(*(self._tell_data(client) for client in list(self._clients.values())))

    async def _tell_data(self, client: RelayClient) -> None:
        if client.is_data_told:
            return
        async with client.lock:
            try:
                if not client.is_data_told:
                    await client.tell_data()
            except MrtcError as error:
                _log.debug("data does not flow yet", to=client.node_id, error=error.message)

    def handle_event(self, event: Any) -> None:
        """Takes `RelayUp`, `RelayLost` and `TrackEnded` of the engine; ignores all others."""
        match type(event).__name__.rpartition("_")[2]:
            case "RelayUp":
                self.server.relay_up(event.relay)
                if client := self._client_of_relay(event.relay):
                    client.is_lost, client.retry_count = False, 0
            case "RelayLost":
                self.server.relay_lost(event.relay)
                if client := self._client_of_relay(event.relay):
                    client.is_lost, client.retry_at = True, self._clock.monotonic()
            case "TrackEnded":
                self._track_ended(event.track)

    # Importing

    async def _import(
        self, node_id: str, track_ids: list[str], room_key: str, holder: str, result: ImportResult
    ) -> None:
        try:
            client = await self._client(node_id)
            async with client.lock:
                await self._import_locked(client, track_ids, room_key, holder, result)
        except MrtcError as error:
            result.unreachable.update(dict.fromkeys(track_ids, error))

    async def _import_locked(
        self, client: RelayClient, track_ids: list[str], room_key: str, holder: str, result: ImportResult
    ) -> None:
        held: dict[str, set[str]] = {}
        for track_id in track_ids:
            if self._origins.get(track_id, client.node_id) != client.node_id:
                held[track_id] = await self._leave_old_origin(track_id)
        items = [client.get_or_add(track_id, room_key) for track_id in track_ids]
        for item in items:
            if former := held.get(item.track_id):
                # Who held it there need not ask again: the track is the same.
                item.holders |= former
                self._origins[item.track_id] = client.node_id
        missing = [item for item in items if item.track is None]
        try:
            if missing:
                await client.start(missing)
        finally:
            for item in items:
                self._settle(client, item, holder, result)

    def _settle(self, client: RelayClient, item: Import, holder: str, result: ImportResult) -> None:
        if item.track is not None:
            item.holders.add(holder)
            item.idle_since = None
            item.retry_count = 0
            self._origins[item.track_id] = client.node_id
            result.tracks[item.track_id] = item.track
        else:
            result.missing.append(item.track_id)
            if not item.holders:
                client.imports.pop(item.track_id, None)

    async def _leave_old_origin(self, track_id: str) -> set[str]:
        """Ends an import; gives its holders."""
        old = self._clients.get(self._origins.pop(track_id, ""))
        item = old.imports.get(track_id) if old is not None else None
        if old is None or item is None:
            return set()
        holders = set(item.holders)
        # Not under the old client's lock: two imports that swap nodes must not wait for each other.
        await old.stop([track_id])
        return holders

    async def _client(self, node_id: str) -> RelayClient:
        client = self._clients.get(node_id)
        if client is None:
            node = await self._directory.find(node_id)
            if node is None:
                raise UnavailableError(f"node {node_id} is not alive")
            client = self._clients.get(node_id)
            if client is None:
                client = self._clients[node_id] = RelayClient(
                    self._engine,
                    self._channels,
                    own_node_id=self._node_id,
                    node_id=node_id,
                    address=node.grpc_address,
                )
        return client

    # Mending

    def _client_of_relay(self, relay_id: str) -> RelayClient | None:
        return next((client for client in self._clients.values() if client.relay_id == relay_id), None)

    def _track_ended(self, track_id: str) -> None:
        client = self._clients.get(self._origins.get(track_id, ""))
        item = client.imports.get(track_id) if client is not None else None
        if item is not None and item.track is not None:
            item.track = None
            item.retry_at = self._clock.monotonic() + _RETRY_DELAYS_S[0]
            self._tell(track_id)

    def _node_gone(self, node: Node) -> None:
        self._gone_nodes.add(node.id)

    def _tell(self, track_id: str) -> None:
        if self._on_changed is not None:
            self._on_changed(track_id)

    async def _sweep(self) -> None:
        gone, self._gone_nodes = self._gone_nodes, set()
        for node_id in gone:
            await self.server.close_of_node(node_id)
            if node_id in self._clients:
                await self._drop_client(self._clients[node_id], tell=False)
        with engine_errors():
            await self.server.sweep()
        if self._data or any(not client.is_data_told for client in self._clients.values()):
            await self._settle_data()
        # One mute node must not hold up the care of the others.
        await asyncio.gather(*(self._care(client) for client in list(self._clients.values())))

    async def _care(self, client: RelayClient) -> None:
        now = self._clock.monotonic()
        async with client.lock:
            try:
                if client.is_lost and now >= client.retry_at:
                    await self._mend_relay(client, now)
                await self._retry_tracks(client, now)
                await self._let_go(client, now)
            except MrtcError as error:
                _log.debug("a relay is not mended yet", to=client.node_id, error=error.message)
        if client.imports or client.data:
            client.idle_since = None
        elif client.idle_since is None:
            client.idle_since = now
        elif now - client.idle_since >= _RELAY_IDLE_S:
            await self._drop_client(client)

    async def _mend_relay(self, client: RelayClient, now: float) -> None:
        client.retry_at = now + _delay(client.retry_count)
        client.retry_count += 1
        had = {track_id for track_id, item in client.imports.items() if item.track is not None}
        await client.reopen()
        for track_id, item in client.imports.items():
            if (item.track is not None) != (track_id in had):
                self._tell(track_id)

    async def _retry_tracks(self, client: RelayClient, now: float) -> None:
        due = [item for item in client.imports.values() if item.track is None and item.holders and now >= item.retry_at]
        if not due:
            return
        for item in due:
            item.retry_at = now + _delay(item.retry_count)
            item.retry_count += 1
        await client.start(due)
        for item in due:
            if item.track is not None:
                item.retry_count = 0
                self._tell(item.track_id)

    async def _let_go(self, client: RelayClient, now: float) -> None:
        idle = [
            item.track_id
            for item in client.imports.values()
            if item.idle_since is not None and now - item.idle_since >= _TRACK_LINGER_S
        ]
        if idle:
            for track_id in idle:
                if self._origins.get(track_id) == client.node_id:
                    del self._origins[track_id]
            await client.stop(idle)

    async def _drop_client(self, client: RelayClient, *, tell: bool = True) -> None:
        async with client.lock:
            if tell and (client.imports or client.data):
                return
            ended = list(client.imports)
            self._clients.pop(client.node_id, None)
            for track_id in ended:
                if self._origins.get(track_id) == client.node_id:
                    del self._origins[track_id]
            await client.close(tell=tell)
        for track_id in ended:
            self._tell(track_id)


def _delay(retry_count: int) -> float:
    return _RETRY_DELAYS_S[min(retry_count, len(_RETRY_DELAYS_S) - 1)]
