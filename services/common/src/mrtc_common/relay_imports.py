"""What comes over relays: which track from which node, and how it is had from there or from elsewhere.

A track comes from its origin or, beyond so many nodes, from one that passes it on: the origin's answer says which
(`relay_tree.py`). A track that is here goes on when it comes from another node.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from .clock import Clock
from .engine_errors import engine_errors
from .errors import MrtcError, UnavailableError
from .relay_client import Import, RelayClient
from .relay_clients import RelayClients
from .relay_types import RelayedTrack, RelayEngine

_OVERLAP_S = 1.0  # a track that moves to another relay comes over both so long: some round trips of any path
_AVOID_S = 10.0  # as long as a dead node may be in the directory
_MAX_REDIRECTS = 4  # then the origin itself has to send
_ARRIVAL_S = 1.0  # a track that is asked for here while it is on its way is waited for


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


@dataclass(frozen=True, slots=True)
class Order:
    """Tracks of one origin that are to be had.

    Args:
        rooms: room keys by track id.
        address: the relay must be one that this node serves there; empty: any.
        holder: holds what is had; None: those who hold it already.
    """

    origin: str
    rooms: Mapping[str, str]
    address: str = ""
    holder: str | None = None
    result: ImportResult = field(default_factory=ImportResult)


class RelayImports:
    """Knows and changes where imported tracks come from.

    Args:
        on_source: called when a track has begun to come from a node that passes it on.
    """

    def __init__(
        self, engine: RelayEngine, clients: RelayClients, node_id: str, clock: Clock, on_source: Callable[[], None]
    ) -> None:
        self._engine, self._clients, self._node_id, self._clock = engine, clients, node_id, clock
        self._on_source = on_source
        # By track: the relay that it comes over.
        self._taken: dict[str, RelayClient] = {}
        # Nodes from which others did not get what they should, and until when.
        self._avoided: dict[str, float] = {}
        # By origin: tracks that came from other nodes and are not taken any more, until it was told.
        self._left: dict[str, set[str]] = {}
        # By track: what is set when an attempt to have it is over.
        self._coming: dict[str, list[asyncio.Event]] = {}

    def __iter__(self) -> Iterator[str]:
        """Over the ids of all tracks, as they are now."""
        return iter(list(self._taken))

    def clear(self) -> None:
        """All relays are closed."""
        self._taken.clear()

    def find(self, track_id: str) -> Import | None:
        """An import that is held or was lately."""
        client = self._taken.get(track_id)
        return client.imports.get(track_id) if client is not None else None

    def client_of(self, track_id: str) -> RelayClient | None:
        """The relay that a track comes over."""
        return self._taken.get(track_id)

    async def hold(self, order: Order) -> None:
        """Holds what is here, and obtains the rest."""
        result, wanted = order.result, []
        for track_id in order.rooms:
            client, item = self._taken.get(track_id), self.find(track_id)
            is_passed_on = client is not None and item is not None and client.passes_on(item)
            if item is None or item.origin != order.origin or not is_passed_on:
                wanted.append(track_id)
            elif item.track is not None:
                self._note(item, order)
            elif not item.holders:
                wanted.append(track_id)
            # Else the caretaker is about to have it from elsewhere, and tells.
        await self.obtain(order, wanted)
        result.missing.extend(t for t in order.rooms if t not in result.tracks and t not in result.unreachable)

    async def obtain(self, order: Order, track_ids: Iterable[str]) -> None:
        """Takes tracks from their origin, or from where it says; what cannot be had stays as it is."""
        wanted, is_over = list(track_ids), asyncio.Event()
        for track_id in wanted:
            self._coming.setdefault(track_id, []).append(is_over)
        try:
            todo = wanted
            for attempt in range(_MAX_REDIRECTS + 1):
                if todo:
                    has_choice = attempt < _MAX_REDIRECTS
                    redirects = await self._obtain_from(order.origin, order, todo, takes_redirects=has_choice)
                    todo = await self.follow(order, redirects)
        finally:
            is_over.set()
            for track_id in wanted:
                self._coming[track_id].remove(is_over)
                if not self._coming[track_id]:
                    del self._coming[track_id]

    async def arrival(self, track_id: str) -> None:
        """Waits a moment for a track that is on its way: its origin names a node as soon as that asks for the track."""
        item = self.find(track_id)
        if item is not None and item.track is not None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ARRIVAL_S):
                while coming := self._coming.get(track_id):
                    await coming[0].wait()

    async def follow(self, order: Order, redirects: Mapping[str, str]) -> list[str]:
        """Takes tracks from nodes that pass them on, by track id; returns those that could not be had there."""
        by_node: dict[str, list[str]] = {}
        for track_id, node_id in redirects.items():
            by_node.setdefault(node_id, []).append(track_id)

        async def take(node_id: str, track_ids: list[str]) -> list[str]:
            if node_id != self._node_id:
                await self._obtain_from(node_id, order, track_ids)
            lacking = [track_id for track_id in track_ids if track_id not in order.result.tracks]
            if lacking:
                self.avoid(node_id)
            return lacking

        parts = await asyncio.gather(*(take(node_id, ids) for node_id, ids in by_node.items()))
        return [track_id for part in parts for track_id in part]

    async def leave(self, track_id: str, *, for_origin: str = "") -> set[str]:
        """Ends an import at once; gives its holders. Its node is told soon, its origin unless that is asked again."""
        client = self._taken.pop(track_id, None)
        item = client.imports.pop(track_id, None) if client is not None else None
        if client is None or item is None:
            return set()
        client.formers[track_id] = self._clock.monotonic()
        if item.origin != for_origin:
            self._note_left(client, item)
        with engine_errors():
            await self._engine.unpublish_track(track=track_id)
        return set(item.holders)

    def forget(self, client: RelayClient, items: Iterable[Import]) -> list[str]:
        """These do not come over that relay any more, and nowhere else; gives their ids."""
        track_ids = []
        for item in items:
            track_ids.append(item.track_id)
            if self._taken.get(item.track_id) is client:
                del self._taken[item.track_id]
            self._note_left(client, item)
        return track_ids

    def forget_origin(self, node_id: str) -> None:
        """A node has gone: it need not be told of anything."""
        self._left.pop(node_id, None)

    async def tell_left(self) -> None:
        """Tells origins what is not taken from other nodes any more; what fails is for the next time."""
        for origin, left in list(self._left.items()):
            told = frozenset(left)
            gone = [track_id for track_id in told if (item := self.find(track_id)) is None or item.origin != origin]
            try:
                client = await self._clients.get(origin)
            except UnavailableError:
                del self._left[origin]  # it is not alive
                continue
            with contextlib.suppress(MrtcError):
                if gone:
                    await client.leave(gone)
                left -= told
                if not left:
                    self._left.pop(origin, None)

    def avoid(self, node_id: str) -> None:
        """Nothing is to be taken from a node for a while that is not its own."""
        self._avoided[node_id] = self._clock.monotonic() + _AVOID_S

    @property
    def avoided(self) -> list[str]:
        """The nodes that are avoided now."""
        now = self._clock.monotonic()
        self._avoided = {node_id: until for node_id, until in self._avoided.items() if until > now}
        return list(self._avoided)

    async def _obtain_from(
        self, node_id: str, order: Order, track_ids: list[str], *, takes_redirects: bool = True
    ) -> dict[str, str]:
        try:
            client = await self._clients.get(node_id, order.address)
            async with client.lock:
                return await self._obtain_locked(client, order, track_ids, takes_redirects)
        except MrtcError as error:
            if node_id == order.origin:
                order.result.unreachable.update(dict.fromkeys(track_ids, error))
            return {}

    async def _obtain_locked(
        self, client: RelayClient, order: Order, track_ids: list[str], takes_redirects: bool
    ) -> dict[str, str]:
        others = [track_id for track_id in track_ids if self._is_other(track_id, client, order)]
        held = {track_id: await self.leave(track_id, for_origin=order.origin) for track_id in others}
        items = [client.get_or_add(track_id, order.rooms[track_id], order.origin) for track_id in track_ids]
        for item in items:
            if former := held.get(item.track_id):
                # Who held it there need not ask again: the track is the same.
                item.holders |= former
                self._taken[item.track_id] = client
        missing = [item for item in items if item.track is None]
        moving = {item.track_id for item in missing if self._taken.get(item.track_id, client) is not client}
        try:
            if not missing:
                return {}
            return await client.start(missing, moving=moving, avoid=self.avoided, takes_redirects=takes_redirects)
        finally:
            for item in items:
                self._settle(client, item, order)

    def _is_other(self, track_id: str, client: RelayClient, order: Order) -> bool:
        """True if what is here by this name cannot go on over that relay: it must end first."""
        now, item = self._taken.get(track_id), self.find(track_id)
        if now is None or item is None:
            return now is not None
        if now is client or item.origin != order.origin:
            return item.origin != order.origin
        return item.track is None or now.own_address != client.own_address

    def _settle(self, client: RelayClient, item: Import, order: Order) -> None:
        if client.imports.get(item.track_id) is not item:
            return
        if item.track is not None:
            self._take_over(client, item)
            item.retry_count = 0
            self._note(item, order)
        elif not item.holders:
            del client.imports[item.track_id]
            if self._taken.get(item.track_id) is client:
                del self._taken[item.track_id]

    def _take_over(self, client: RelayClient, item: Import) -> None:
        former = self._taken.get(item.track_id)
        self._taken[item.track_id] = client
        if former is client:
            return
        old = former.imports.pop(item.track_id, None) if former is not None else None
        if former is not None and old is not None:
            # Make before break: both bring it for a while.
            item.holders |= old.holders
            former.formers[item.track_id] = self._clock.monotonic() + _OVERLAP_S
        if client.passes_on(item):
            self._on_source()

    def _note(self, item: Import, order: Order) -> None:
        if order.holder is not None:
            item.holders.add(order.holder)
        if item.holders:
            item.idle_since = None
        elif item.idle_since is None:
            item.idle_since = self._clock.monotonic()
        if item.track is not None:
            order.result.tracks[item.track_id] = item.track

    def _note_left(self, client: RelayClient, item: Import) -> None:
        if client.passes_on(item):
            self._left.setdefault(item.origin, set()).add(item.track_id)
