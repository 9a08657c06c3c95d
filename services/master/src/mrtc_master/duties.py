"""What one master instance does for all: tells of dead nodes, removes orphans, closes empty rooms, keeps sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mrtc.event.v1 import state_pb2
from mrtc.node.v1.master_service_pb2 import NODE_STATE_DRAINING, Node
from mrtc_common import tables
from mrtc_common.clock import Clock
from mrtc_common.errors import MrtcError
from mrtc_common.kv import Change, SnapshotDone
from mrtc_common.log import get_logger
from mrtc_common.nats import NatsLink
from mrtc_common.node import NodeDirectory
from mrtc_common.tasks import end_tasks

from .core.expiries import Expiries
from .core.node_losses import NodeLosses
from .core.reaper import Reaper
from .core.rooms_view import RoomsView
from .core.session_keeper import SessionKeeper
from .figures import MasterFigures
from .ports import Lease, Notifier, RoomStore, Serving, SessionStore

_log = get_logger(__name__)

_INTERVAL_S = 0.5
_MAX_REAPS_PER_ROUND = 200
_KEPT_AT_ONCE = 100


class Duties:
    """Follows rooms and sessions always, and acts on them while the lease is held.

    Args:
        resync_grace_s: nobody is removed for so long after the link to NATS came up: the session grace.
        serving: whether signaling is there; while it is not, its sessions are kept alive here.
        kept: where they are.
    """

    def __init__(
        self,
        link: NatsLink,
        directory: NodeDirectory,
        lease: Lease,
        store: RoomStore,
        notifier: Notifier,
        reaper: Reaper,
        figures: MasterFigures,
        clock: Clock,
        *,
        resync_grace_s: float,
        serving: Serving,
        kept: SessionStore,
    ) -> None:
        self._serving = serving
        self._kept = kept
        self._keeper = SessionKeeper(resync_grace_s)
        self._expiries = Expiries(resync_grace_s)
        self._was_served = True
        self._keeping: asyncio.Task[None] | None = None
        self._rooms = tables.rooms(link)
        self._sessions = tables.sessions(link)
        self._link = link
        self._directory = directory
        self._lease = lease
        self._store = store
        self._notifier = notifier
        self._reaper = reaper
        self._figures = figures
        self._clock = clock
        self._resync_grace_s = resync_grace_s
        self._losses = NodeLosses()
        self.view = RoomsView()
        self._died: list[Node] = []
        self._wake = asyncio.Event()
        self._synced = {"rooms": False, "sessions": False}
        self._tasks: list[asyncio.Task[None]] = []
        directory.on_gone(self._node_gone)

    async def start(self) -> None:
        """Begins to follow; returns at once."""
        self._tasks = [
            asyncio.create_task(self._follow_rooms(), name="watch-rooms"),
            asyncio.create_task(self._follow_sessions(), name="watch-sessions"),
            asyncio.create_task(self._run(), name="duties"),
        ]

    async def aclose(self) -> None:
        """Ends."""
        await end_tasks(*self._tasks, self._keeping)

    @property
    def is_synced(self) -> bool:
        """True once rooms and sessions were read."""
        return all(self._synced.values())

    def _node_gone(self, node: Node) -> None:
        self._died.append(node)
        self._wake.set()

    async def _follow_rooms(self) -> None:
        async with self._rooms.watch() as watch:
            async for item in watch:
                if isinstance(item, Change):
                    self.view.apply_room_change(item.key, item.value, item.revision, self._clock.monotonic())
                elif isinstance(item, SnapshotDone):
                    self._on_synced("rooms", item.is_resync)

    async def _follow_sessions(self) -> None:
        async with self._sessions.watch() as watch:
            async for item in watch:
                if isinstance(item, Change):
                    self._apply_session(item)
                elif isinstance(item, SnapshotDone):
                    self._on_synced("sessions", item.is_resync)

    def _apply_session(self, change: Change[state_pb2.SessionRecord]) -> None:
        now = self._clock.monotonic()
        if change.value is not None:
            self._expiries.written(change.key, now)
        elif not self._expiries.removed(change.key, now, is_expired=change.is_expired):
            return
        self.view.apply_session_change(change.key, change.value)

    def _on_synced(self, what: str, is_resync: bool) -> None:
        # At a restart of NATS every session may have expired though its client is well: each gets its grace again.
        self._reaper.hold_until(self._clock.monotonic() + (self._resync_grace_s if is_resync else 0.0))
        self._synced[what] = True

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_INTERVAL_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            self._figures.show_rooms(len(self.view.rooms), self.view.participant_count(), len(self.view.sessions))
            self._figures.lease_held.set(self._lease.is_held)
            if not self._lease.is_held:
                self._died.clear()
                continue
            try:
                await self._act()
            except MrtcError as error:
                _log.debug("duties wait", error=error.message)
            except Exception:
                _log.exception("a duty failed; the next round tries again")

    async def _act(self) -> None:
        if not (self._link.is_ready and self.is_synced and self._directory.is_synced):
            return
        died, self._died = self._died, []
        for node in died:
            has_drained = node.state == NODE_STATE_DRAINING
            (_log.info if has_drained else _log.warning)("node left" if has_drained else "node died", gone=node.id)
            self._figures.nodes_lost.labels("left" if has_drained else "died").inc()
            await self._notifier.node_died(node.id)
        now = self._clock.monotonic()
        for session_id in self._expiries.due(now):
            self.view.apply_session_change(session_id, None)
        self._keep_sessions(now)
        for session in self._losses.due(self.view.sessions.values(), set(self._directory.nodes), now):
            await self._notifier.media_node_lost(session.session_id, session.node_id)
        for reap in self._reaper.due(self.view, now)[:_MAX_REAPS_PER_ROUND]:
            if await self._store.reap(reap):
                kind = type(reap).__name__
                self._figures.reaped.labels(kind).inc()
                _log.info("reaped", kind=kind, room=reap.room_key)

    def _keep_sessions(self, now: float) -> None:
        if not self._serving.has_heard or (self._keeping is not None and not self._keeping.done()):
            return
        is_served = self._serving.is_served
        if is_served is not self._was_served:
            _log.info("signaling serves" if is_served else "no signaling instance serves; sessions are kept alive")
            self._was_served = is_served
        due = self._keeper.due(self.view.sessions, is_served=is_served, now=now)
        if due:
            # Beside the other duties: thousands of writes take some seconds.
            self._keeping = asyncio.create_task(self._keep(due), name="keep-sessions")

    async def _keep(self, session_ids: Sequence[str]) -> None:
        for begin in range(0, len(session_ids), _KEPT_AT_ONCE):
            await asyncio.gather(*(self._kept.keep(one) for one in session_ids[begin : begin + _KEPT_AT_ONCE]))
