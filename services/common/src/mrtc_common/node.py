"""A media node's place in the registry: its heartbeat, its drain order, and the directory of the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from mrtc.node.v1.master_service_pb2 import (
    NODE_STATE_DRAINING,
    NODE_STATE_READY,
    Node,
    NodeKind,
    NodeLoad,
)

from . import __version__, tables
from .clock import Clock, SystemClock
from .errors import UnavailableError
from .ids import new_id
from .kv import Change, SnapshotDone
from .log import get_logger
from .nats import NatsLink
from .nats_schema import NODE_TTL_S
from .subjects import drain_key, node_key
from .tasks import end_tasks

_log = get_logger(__name__)

HEARTBEAT_INTERVAL_S = 2.0
_STALL_CHECK_S = 1.0


def new_node_id(kind: str) -> str:
    """A node id: unique per process life, so that a restarted process is a new node."""
    return new_id(kind)


class NodeAgent:
    """Keeps a node registered: heartbeats with its load, told to drain by key, gone from the registry at `aclose`.

    Args:
        node_id: from `new_node_id`.
        grpc_address: `host:port` as other nodes reach it.
        load: measures; called at every heartbeat.
        passes_tracks_on: others may take tracks of other nodes from here.
        on_drain: called with True when told to drain and with False when that is taken back.
        on_fenced: called when this process stood still for longer than its heartbeat lives: the others took it for dead
            and what it had is elsewhere now, so it must end all of it. Not when NATS alone was away.
    """

    def __init__(
        self,
        link: NatsLink,
        *,
        node_id: str,
        kind: NodeKind.ValueType,
        grpc_address: str,
        load: Callable[[], NodeLoad],
        region: str = "",
        zone: str = "",
        passes_tracks_on: bool = False,
        on_drain: Callable[[bool], None] | None = None,
        on_fenced: Callable[[], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._link = link
        self._on_fenced = on_fenced
        self._nodes = tables.nodes(link)
        self._drains = tables.drains(link)
        self._load = load
        self._on_drain = on_drain
        self._clock = clock or SystemClock()
        self._node = Node(
            id=node_id,
            kind=kind,
            grpc_address=grpc_address,
            region=region,
            zone=zone,
            state=NODE_STATE_READY,
            started_at_ms=self._clock.unix_ms(),
            version=__version__,
            passes_tracks_on=passes_tracks_on,
        )
        self._beat_now = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_told_to_drain = False
        self._is_closing = False

    @property
    def node_id(self) -> str:
        """This node."""
        return self._node.id

    @property
    def is_draining(self) -> bool:
        """True if no new work shall come here."""
        return self._is_told_to_drain or self._is_closing

    async def start(self) -> None:
        """Begins to register; returns at once, also while NATS is away."""
        self._tasks = [
            asyncio.create_task(self._beat(), name="node-heartbeat"),
            asyncio.create_task(self._follow_drain(), name="node-drain"),
            asyncio.create_task(self._watch_stall(), name="node-fence"),
        ]
        self._remove_listener = self._link.on_change(lambda ready: self._beat_now.set() if ready else None)

    def drain(self) -> None:
        """Says from now on that this node takes no new work; for SIGTERM."""
        self._is_closing = True
        self._beat_now.set()

    async def aclose(self) -> None:
        """Leaves the registry."""
        if not self._tasks:
            return
        self._remove_listener()
        await end_tasks(*self._tasks)
        self._tasks = []
        self._is_closing = True
        with contextlib.suppress(UnavailableError, TimeoutError):
            async with asyncio.timeout(1):
                # Said first, so that whoever sees the key vanish knows that nothing died.
                await self._nodes.put(node_key(self.node_id), self._heartbeat())
                await self._nodes.delete(node_key(self.node_id))
                await self._drains.delete(drain_key(self.node_id))

    async def _beat(self) -> None:
        was_up = False
        while True:
            self._beat_now.clear()
            try:
                await self._nodes.put(node_key(self.node_id), self._heartbeat())
                was_up = True
            except UnavailableError:
                if was_up:
                    _log.warning("the heartbeat cannot be written; media goes on")
                was_up = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_INTERVAL_S):
                    await self._beat_now.wait()

    async def _watch_stall(self) -> None:
        while True:
            before = self._clock.monotonic()
            await asyncio.sleep(_STALL_CHECK_S)
            stall = self._clock.monotonic() - before - _STALL_CHECK_S
            if stall >= NODE_TTL_S and self._on_fenced is not None:
                _log.warning("this process stood still; it gives up what it had", seconds=round(stall, 1))
                self._on_fenced()

    def _heartbeat(self) -> Node:
        node = Node()
        node.CopyFrom(self._node)
        node.state = NODE_STATE_DRAINING if self.is_draining else NODE_STATE_READY
        node.load.CopyFrom(self._load())
        node.heartbeat_at_ms = self._clock.unix_ms()
        return node

    async def _follow_drain(self) -> None:
        async with self._drains.watch(drain_key(self.node_id)) as watch:
            async for item in watch:
                if isinstance(item, Change):
                    self._set_drain(item.value is not None)

    def _set_drain(self, is_draining: bool) -> None:
        if is_draining == self._is_told_to_drain:
            return
        self._is_told_to_drain = is_draining
        _log.info("told to drain" if is_draining else "drain is taken back")
        self._beat_now.set()
        if self._on_drain is not None:
            self._on_drain(is_draining)


class NodeDirectory:
    """All nodes that are alive, kept by a watch; looks a node up directly while the watch does not know it yet.

    A node is gone when it says so or its heartbeat expires. When NATS itself was away, every node gets a full TTL to
    write its heartbeat again before it is taken for gone: a restarted NATS must not end any call.
    """

    def __init__(self, link: NatsLink, clock: Clock | None = None) -> None:
        self._link = link
        self._nodes = tables.nodes(link)
        self._clock = clock or SystemClock()
        self._known: dict[str, Node] = {}
        self._seen_at: dict[str, float] = {}
        self._missing_until: dict[str, float] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._gone_listeners: list[Callable[[Node], None]] = []
        self._has_synced = asyncio.Event()

    async def start(self) -> None:
        """Begins to watch; returns at once."""
        self._tasks = [
            asyncio.create_task(self._follow(), name="node-directory"),
            asyncio.create_task(self._expire(), name="node-directory-expiry"),
        ]

    async def aclose(self) -> None:
        """Ends the watch."""
        await end_tasks(*self._tasks)
        self._tasks = []

    @property
    def nodes(self) -> dict[str, Node]:
        """By id."""
        return dict(self._known)

    def heard_within(self, seconds: float) -> dict[str, Node]:
        """Nodes whose heartbeat came that lately: those to give new work to, before silence makes the others dead."""
        since = self._clock.monotonic() - seconds
        return {node_id: node for node_id, node in self._known.items() if self._seen_at[node_id] >= since}

    @property
    def is_synced(self) -> bool:
        """True once the registry was read."""
        return self._has_synced.is_set()

    def on_gone(self, listener: Callable[[Node], None]) -> None:
        """Calls `listener(node)`, with what was last known of it, when a node leaves or dies."""
        self._gone_listeners.append(listener)

    async def find(self, node_id: str) -> Node | None:
        """The node, or None if it is not alive. Raises UnavailableError if neither watch nor store can tell."""
        known = self._known.get(node_id)
        if known is not None:
            return known
        entry = await self._nodes.get(node_key(node_id))
        return entry.value if entry is not None else None

    async def _follow(self) -> None:
        async with self._nodes.watch() as watch:
            async for item in watch:
                if isinstance(item, Change):
                    self._apply(item)
                elif isinstance(item, SnapshotDone):
                    self._has_synced.set()

    def _apply(self, change: Change[Node]) -> None:
        if change.value is not None:
            self._known[change.key] = change.value
            self._seen_at[change.key] = self._clock.monotonic()
            self._missing_until.pop(change.key, None)
        elif change.is_inferred:
            self._missing_until[change.key] = self._clock.monotonic() + NODE_TTL_S
        elif change.is_expired and change.key in self._known:
            # By this process's clock too: the server's may have been set, and that kills nobody.
            self._missing_until[change.key] = self._seen_at[change.key] + NODE_TTL_S
        else:
            self._remove(change.key)

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            if not self._link.is_ready:
                # Nobody can write a heartbeat now: the time does not count.
                deadline = self._clock.monotonic() + NODE_TTL_S
                self._missing_until = dict.fromkeys(self._missing_until, deadline)
                continue
            now = self._clock.monotonic()
            for node_id in [node_id for node_id, until in self._missing_until.items() if now >= until]:
                self._remove(node_id)

    def _remove(self, node_id: str) -> None:
        self._missing_until.pop(node_id, None)
        self._seen_at.pop(node_id, None)
        node = self._known.pop(node_id, None)
        if node is not None:
            for listener in self._gone_listeners:
                listener(node)
