"""Relays of one engine node: serves other nodes, imports tracks from them, and mends what breaks.

Whoever passes a track of another node on keeps it while somebody takes it, with receivers of its own or without.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mrtc.node.v1.master_service_pb2 import NODE_STATE_DRAINING, Node

from .clock import Clock, SystemClock
from .death_watch import DeathWatch
from .engine_errors import engine_errors
from .errors import MrtcError
from .grpc import Channels
from .log import get_logger
from .node import NodeDirectory
from .relay_client import Import, RelayClient
from .relay_clients import RelayClients
from .relay_data import RelayData
from .relay_imports import ImportResult, Order, RelayImports
from .relay_server import RelayServer
from .relay_tree import RelayTrees
from .relay_types import RelayedTrack, RelayEngine
from .tasks import end_tasks, repeat

__all__ = ["ImportResult", "RelayEngine", "RelayManager", "RelayServer", "RelayedTrack"]

_log = get_logger(__name__)

_SWEEP_INTERVAL_S = 0.5
_TRACK_LINGER_S = 2.0  # a track let go is kept so long, since layouts flip back and forth
_RELAY_IDLE_S = 30.0
_RETRY_DELAYS_S = (0.25, 0.5, 1.0, 2.0, 4.0)


class RelayManager:
    """Imports tracks by reference: a track is imported once, however many hold it, and let go after the last.

    Feed it the engine's events by `handle_event`. Register `server` (the RelayService) at the node's gRPC server.

    Args:
        on_changed: called with the id of an imported track that ended or came back; who uses it should look again.
        max_edges: to so many nodes each node sends a track that begins here; 0: all take it from here.
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
        max_edges: int = 0,
    ) -> None:
        self._node_id = node_id
        self._directory = directory
        self._on_changed = on_changed
        self._clock = clock or SystemClock()
        self._clients = RelayClients(engine, channels, directory, node_id)
        self._wake = asyncio.Event()
        self._imports = RelayImports(engine, self._clients, node_id, self._clock, self._wake.set)
        self._data = RelayData(self._clients, node_id)
        trees = RelayTrees(directory, max_edges)
        self.server = RelayServer(engine, self._clock, trees, self.source_of, self._imports.arrival)
        self._deaths = DeathWatch(directory, self._source_died)
        self._tasks: list[asyncio.Task[None]] = []
        self._rehoming = asyncio.Lock()
        self._gone_nodes: set[str] = set()
        directory.on_gone(self._node_gone)

    @property
    def relay_count(self) -> int:
        """Relays in both directions."""
        return len(self._clients) + self.server.relay_count

    @property
    def passed_on(self) -> frozenset[str]:
        """Tracks of other nodes that some node takes from here."""
        return self.server.sent.intersection(self._imports)

    async def start(self) -> None:
        """Starts the caretakers."""
        self._tasks = [
            asyncio.create_task(repeat(self._sweep, _SWEEP_INTERVAL_S, "relays"), name="relay-sweep"),
            asyncio.create_task(self._follow_sources(), name="relay-sources"),
        ]

    async def wait_nothing_passed_on(self, timeout_s: float) -> None:
        """Waits until whoever took tracks of other nodes from here has them from elsewhere; a drain makes them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                # Polled: a drain is rare, and a wake-up per track would be more to get wrong.
                while self.passed_on:  # noqa: ASYNC110
                    await asyncio.sleep(_SWEEP_INTERVAL_S / 5)

    async def aclose(self) -> None:
        """Ends all relays that this node opened."""
        await end_tasks(*self._tasks)
        self._tasks = []
        await self._deaths.aclose()
        for client in self._clients:
            async with client.lock:
                with contextlib.suppress(Exception):
                    await client.close()
        self._clients.clear()
        self._imports.clear()

    async def import_tracks(self, wanted: Mapping[str, str], room_key: str, *, holder: str = "") -> ImportResult:
        """Imports tracks of one room at once; `wanted` gives the origin node of each track id.

        What is missing is not held; what is there is held until `release_track` of the same holder.
        """
        by_node: dict[str, list[str]] = {}
        for track_id, node_id in wanted.items():
            if node_id != self._node_id:
                by_node.setdefault(node_id, []).append(track_id)
        result = ImportResult()
        rooms = {node_id: dict.fromkeys(track_ids, room_key) for node_id, track_ids in by_node.items()}
        orders = [Order(node_id, rooms[node_id], holder=holder, result=result) for node_id in by_node]
        await asyncio.gather(*(self._imports.hold(order) for order in orders))
        return result

    def release_track(self, track_id: str, *, holder: str = "") -> None:
        """Lets a track go; it ends a moment after the last holder did. No error if it is not held."""
        item = self._imports.find(track_id)
        if item is not None:
            item.holders.discard(holder)
            if not item.holders and item.idle_since is None:
                item.idle_since = self._clock.monotonic()

    def origin_of(self, track_id: str) -> str | None:
        """The node where an imported track begins; None if it is not imported."""
        item = self._imports.find(track_id)
        return item.origin if item is not None else None

    def source_of(self, track_id: str) -> str | None:
        """The node that an imported track comes from, its origin or one that passes it on; None if not imported."""
        client = self._imports.client_of(track_id)
        return client.node_id if client is not None else None

    def is_held(self, track_id: str, origin: str, holder: str) -> bool:
        """True if this holder has the track of that origin."""
        item = self._imports.find(track_id)
        return item is not None and item.origin == origin and holder in item.holders

    def node_of_relay(self, relay_id: str) -> str | None:
        """The other node of a relay; None if there is no such relay."""
        client = self._clients.find(relay_id)
        return client.node_id if client is not None else self.server.node_of(relay_id)

    async def drop_track(self, track_id: str) -> None:
        """Ends an import at once, whoever holds it: for a track whose publisher is moving to this very node."""
        client = self._imports.client_of(track_id)
        if client is not None:
            async with client.lock:
                await self._imports.leave(track_id)

    async def set_data(self, room_key: str, node_ids: Iterable[str]) -> None:
        """Has a room's data messages come from exactly these nodes; the caretaker retries those that do not answer."""
        await self._data.set(room_key, node_ids)

    def handle_event(self, event: Any) -> None:
        """Takes `RelayUp`, `RelayLost` and `TrackEnded` of the engine; ignores all others."""
        match type(event).__name__.rpartition("_")[2]:
            case "RelayUp":
                self.server.relay_up(event.relay)
                if client := self._clients.find(event.relay):
                    client.is_lost, client.retry_count = False, 0
            case "RelayLost":
                self.server.relay_lost(event.relay)
                if client := self._clients.find(event.relay):
                    self._lost(client)
            case "TrackEnded":
                self._track_ended(event.track)

    # Mending

    def _lost(self, client: RelayClient) -> None:
        client.is_lost, client.retry_at = True, self._clock.monotonic()
        self._wake.set()

    def _source_died(self, node_id: str) -> None:
        for client in self._clients.of_node(node_id):
            self._lost(client)

    def _track_ended(self, track_id: str) -> None:
        client, item = self._imports.client_of(track_id), self._imports.find(track_id)
        if client is None or item is None or item.track is None:
            return
        item.track = None
        if client.passes_on(item):
            # Most likely it goes on elsewhere.
            self._wake.set()
        else:
            item.retry_at = self._clock.monotonic() + _RETRY_DELAYS_S[0]
        self._tell(track_id)

    def _node_gone(self, node: Node) -> None:
        self._gone_nodes.add(node.id)

    def _tell(self, track_id: str) -> None:
        if self._on_changed is not None:
            self._on_changed(track_id)

    async def _follow_sources(self) -> None:
        """Takes what other nodes pass on from elsewhere as soon as they do not."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SWEEP_INTERVAL_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._rehome()
            except Exception:
                _log.exception("the relay caretaker failed; it goes on")

    async def _rehome(self) -> None:
        async with self._rehoming:
            due: dict[tuple[str, str], list[Import]] = {}
            passing: set[str] = set()
            for client in self._clients:
                items = [item for item in client.imports.values() if client.passes_on(item)]
                if not items:
                    continue
                has_left = client.is_lost or self._is_draining(client.node_id)
                if has_left:
                    self._imports.avoid(client.node_id)
                else:
                    passing.add(client.node_id)
                for item in self._due(items, has_left):
                    due.setdefault((item.origin, client.own_address), []).append(item)
            self._deaths.follow(passing)
            await asyncio.gather(*(self._rehome_part(*key, items) for key, items in due.items()))

    def _due(self, items: Iterable[Import], has_left: bool) -> list[Import]:
        """What is to be had from elsewhere now."""
        now = self._clock.monotonic()
        due = [item for item in items if (has_left or item.track is None) and now >= item.retry_at]
        if due:
            sent = self.server.sent
            due = [item for item in due if item.holders or item.track_id in sent]
        for item in due:
            item.retry_at = now + _delay(item.retry_count)
            item.retry_count += 1
        return due

    async def _rehome_part(self, origin: str, address: str, items: list[Import]) -> None:
        lacked = {item.track_id for item in items if item.track is None}
        order = Order(origin, {item.track_id: item.room_key for item in items}, address)
        await self._imports.obtain(order, list(order.rooms))
        _log.debug("tracks come from elsewhere now", count=len(order.result.tracks), of=len(items), origin=origin)
        for track_id in lacked & order.result.tracks.keys():
            self._tell(track_id)

    def _is_draining(self, node_id: str) -> bool:
        node = self._directory.nodes.get(node_id)
        return node is not None and node.state == NODE_STATE_DRAINING

    async def _sweep(self) -> None:
        gone, self._gone_nodes = self._gone_nodes, set()
        for node_id in gone:
            await self._forget_node(node_id)
        with engine_errors():
            await self.server.sweep()
        await self._data.settle()
        await self._imports.tell_left()
        # One mute node must not hold up the care of the others.
        await asyncio.gather(*(self._care(client) for client in self._clients))

    async def _forget_node(self, node_id: str) -> None:
        await self.server.close_of_node(node_id)
        clients = self._clients.of_node(node_id)
        for client in clients:
            client.is_lost = True
            for item in client.imports.values():
                item.retry_at = 0.0
        await self._rehome()
        for client in clients:
            await self._drop_client(client, tell=False)
        for track_id in [track_id for track_id in self._imports if self.origin_of(track_id) == node_id]:
            await self._imports.leave(track_id)
            self._tell(track_id)
        self._imports.forget_origin(node_id)

    async def _care(self, client: RelayClient) -> None:
        now = self._clock.monotonic()
        redirects: dict[str, str] = {}
        async with client.lock:
            try:
                await client.end_formers(now)
                if client.is_lost and now >= client.retry_at and (client.imports or client.data):
                    redirects = await self._mend_relay(client, now)
                redirects |= await self._retry_tracks(client, now)
                await self._let_go(client, now)
            except MrtcError as error:
                _log.debug("a relay is not mended yet", to=client.node_id, error=error.message)
        if redirects:
            await self._follow_all(client, redirects)
        if client.imports or client.data or client.formers:
            client.idle_since = None
        elif client.idle_since is None:
            client.idle_since = now
        elif now - client.idle_since >= _RELAY_IDLE_S:
            await self._drop_client(client)

    async def _mend_relay(self, client: RelayClient, now: float) -> dict[str, str]:
        client.retry_at = now + _delay(client.retry_count)
        client.retry_count += 1
        had = {track_id for track_id, item in client.imports.items() if item.track is not None}
        redirects = await client.reopen()
        for track_id, item in client.imports.items():
            if (item.track is not None) != (track_id in had):
                self._tell(track_id)
        return redirects

    async def _retry_tracks(self, client: RelayClient, now: float) -> dict[str, str]:
        own = [item for item in client.imports.values() if not client.passes_on(item)]
        due = [item for item in own if item.track is None and item.holders and now >= item.retry_at]
        if not due:
            return {}
        for item in due:
            item.retry_at = now + _delay(item.retry_count)
            item.retry_count += 1
        redirects = await client.start(due, avoid=self._imports.avoided)
        for item in due:
            if item.track is not None:
                item.retry_count = 0
                self._tell(item.track_id)
        return redirects

    async def _follow_all(self, client: RelayClient, redirects: Mapping[str, str]) -> None:
        """Takes what its origin has no room for any more from where it says."""
        rooms = {track_id: client.imports[track_id].room_key for track_id in redirects if track_id in client.imports}
        order = Order(client.node_id, rooms)
        await self._imports.follow(order, {track_id: redirects[track_id] for track_id in rooms})
        for track_id in order.result.tracks:
            self._tell(track_id)

    async def _let_go(self, client: RelayClient, now: float) -> None:
        def is_over(item: Import) -> bool:
            return item.idle_since is not None and now - item.idle_since >= _TRACK_LINGER_S

        idle = [item for item in client.imports.values() if is_over(item)]
        if idle:
            sent = self.server.sent
            idle = [item for item in idle if item.track_id not in sent]
        if idle:
            await client.stop(self._imports.forget(client, idle))

    async def _drop_client(self, client: RelayClient, *, tell: bool = True) -> None:
        async with client.lock:
            if tell and (client.imports or client.data):
                return
            self._clients.remove(client)
            ended = self._imports.forget(client, client.imports.values())
            await client.close(tell=tell)
        for track_id in ended:
            self._tell(track_id)


def _delay(retry_count: int) -> float:
    return _RETRY_DELAYS_S[min(retry_count, len(_RETRY_DELAYS_S) - 1)]
