"""One room on this instance: a single watch feeds the view that all local sessions of the room share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from mrtc.event.v1 import state_pb2
from mrtc_common import subjects
from mrtc_common.clock import Clock
from mrtc_common.errors import UnavailableError
from mrtc_common.log import get_logger
from mrtc_common.tasks import end_tasks

from mrtc_signaling.core.room_view import Change, Event, Joined, Left, ParticipantChange, RoomView, Updated
from mrtc_signaling.core.roster import Roster, RosterOptions
from mrtc_signaling.core.speakers import SpeakerMerger, Speakers
from mrtc_signaling.ports import Bus, MessageLog, RoomStore, Subscription

_log = get_logger(__name__)

READY_TIMEOUT_S = 5.0
# A room that was just left is often entered again (reload of a page, a probe); its watch is kept for a while.
LINGER_S = 10.0
_SPEAKER_REFRESH_S = 1.0


class Member(Protocol):
    """A local session as its room sees it.

    Attributes:
        takes_batches: it is told of listeners of a large room by `on_batch`, not one by one.
    """

    takes_batches: bool

    def on_event(self, event: Event) -> None:
        """Something happened in the room."""
        ...

    def on_batch(self) -> None:
        """The room's roster has changes for it."""
        ...

    def on_nodes(self) -> None:
        """The room's people sit on other nodes than before."""
        ...

    def on_speakers(self, speakers: Speakers) -> None:
        """Other people speak."""
        ...

    def on_message(self, seq: int, message: state_pb2.RoomMessage) -> None:
        """A text message came."""
        ...


class RoomHub:
    """The view of one room and the sessions that share it. Made and ended by `RoomHubs`."""

    def __init__(
        self,
        room_key: str,
        rooms: RoomStore,
        messages: MessageLog,
        bus: Bus,
        clock: Clock,
        roster: RosterOptions | None = None,
    ) -> None:
        self.room_key = room_key
        self.app_id, self.room = subjects.parse_room_key(room_key)
        self.view = RoomView()
        self.roster = Roster(self.view, roster)
        # By participant id: those who are told of everybody one by one, and those who take batches.
        self._singly: dict[str, Member] = {}
        self._batched: dict[str, Member] = {}
        self.last_message_seq = 0
        self.users = 0
        # Publishers of WHIP that are carried to another node just now.
        self._leading = 0
        self._is_nobody_leading = asyncio.Event()
        self._is_nobody_leading.set()
        self._rooms, self._messages, self._bus, self._clock = rooms, messages, bus, clock
        self._speakers = SpeakerMerger()
        self._nodes: frozenset[str] = frozenset()
        self._ready = asyncio.Event()
        self._changed = asyncio.Event()
        self._revision = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._speaker_subscription: Subscription | None = None
        self._flush_timer: asyncio.TimerHandle | None = None

    @property
    def speakers(self) -> Speakers:
        """Who speaks now."""
        return self._speakers.current

    @contextlib.contextmanager
    def leading(self) -> Iterator[None]:
        """While a publisher is carried to another node."""
        self._leading += 1
        self._is_nobody_leading.clear()
        try:
            yield
        finally:
            self._leading -= 1
            if not self._leading:
                self._is_nobody_leading.set()

    async def wait_led(self) -> None:
        """Waits while publishers are carried."""
        await self._is_nobody_leading.wait()

    def start(self) -> None:
        """Begins to follow the room."""
        self._spawn(self._follow_records())
        self._spawn(self._follow_recordings())
        self._spawn(self._follow_messages())
        self._spawn(self._follow_speakers())

    async def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Waits until the view is complete. Raises UnavailableError."""
        try:
            await asyncio.wait_for(self._ready.wait(), timeout_s)
        except TimeoutError:
            raise UnavailableError("the room's state cannot be read at the moment") from None

    async def catch_up(self) -> None:
        """Waits until the view has all that had been written when this was called, by whatever instance.

        Nothing is written while the store is away: then the view is as good as it can be.
        """
        try:
            newest = await self._rooms.last_revision(self.room_key)
        except UnavailableError:
            return
        if not await self.wait_until(lambda _: self._revision >= newest, READY_TIMEOUT_S):
            raise UnavailableError("the room's state cannot be read at the moment")

    async def wait_until(self, condition: Callable[[RoomView], bool], timeout_s: float) -> bool:
        """Waits until the view fulfils a condition; False when the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not condition(self.view):
                    self._changed.clear()
                    await self._changed.wait()
                return True
        return False

    async def aclose(self) -> None:
        """Ends all following."""
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        await end_tasks(*self._tasks)
        if self._speaker_subscription is not None:
            await self._speaker_subscription.aclose()

    def enter(self, participant_id: str, member: Member) -> None:
        """From now on this session is told what happens."""
        (self._batched if member.takes_batches else self._singly)[participant_id] = member

    def leave(self, participant_id: str, member: Member) -> None:
        """No longer, if it is the one that is told."""
        members = self._batched if member.takes_batches else self._singly
        if members.get(participant_id) is member:
            del members[participant_id]

    def apply(self, changes: list[Change]) -> None:
        """Takes changes and tells the members."""
        for event in self.view.apply_all(changes):
            self._tell(event)
        self._flush_soon()
        if any(isinstance(change, ParticipantChange) for change in changes):
            self._look_at_nodes()
        self._changed.set()

    def _members(self) -> list[Member]:
        return [*self._singly.values(), *self._batched.values()]

    def _tell(self, event: Event) -> None:
        for member in list(self._singly.values()):
            member.on_event(event)
        at_once = self.roster.take(event)
        for told in at_once:
            for member in list(self._batched.values()):
                member.on_event(told)
        if not at_once and isinstance(event, Joined | Updated | Left):
            # Whom it is about must not wait for what others are told later.
            about = self._batched.get(event.record.participant.id)
            if about is not None:
                about.on_event(event)

    def _flush_soon(self) -> None:
        due_at = self.roster.due_at()
        if due_at is None or self._flush_timer is not None:
            return
        delay = max(0.0, due_at - self._clock.monotonic())
        self._flush_timer = asyncio.get_running_loop().call_later(delay, self._flush)

    def _flush(self) -> None:
        self._flush_timer = None
        self.roster.flush(self._clock.monotonic())
        for member in list(self._batched.values()):
            member.on_batch()

    def _look_at_nodes(self) -> None:
        nodes = frozenset(self.view.media_nodes())
        if nodes != self._nodes:
            self._nodes = nodes
            for member in self._members():
                member.on_nodes()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(self._guard(work)))

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception:
            _log.exception("following a room failed", room=self.room_key)

    async def _follow_records(self) -> None:
        last_seq = asyncio.ensure_future(self._last_message_seq())
        try:
            async for news in self._rooms.watch(self.room_key):
                if isinstance(news, list):
                    self.apply(news)
                    continue
                if not self._ready.is_set():
                    self.last_message_seq = await last_seq
                    self._ready.set()
                self._revision = news
                self._changed.set()
        finally:
            last_seq.cancel()

    async def _last_message_seq(self) -> int:
        while True:
            try:
                return await self._messages.last_seq(self.room_key)
            except UnavailableError:
                await asyncio.sleep(0.2)

    async def _follow_recordings(self) -> None:
        async for change in self._rooms.watch_recordings(self.room_key):
            self.apply([change])

    async def _follow_messages(self) -> None:
        await self._ready.wait()
        async for seq, message in self._messages.follow(self.room_key, self.last_message_seq):
            self.last_message_seq = seq
            for member in self._members():
                member.on_message(seq, message)

    async def _follow_speakers(self) -> None:
        while self._speaker_subscription is None:
            try:
                self._speaker_subscription = await self._bus.on_speakers(self.room_key, self._on_speakers)
            except UnavailableError:
                await asyncio.sleep(0.5)
        while True:
            await asyncio.sleep(_SPEAKER_REFRESH_S)
            if self._speakers.refresh(self._clock.monotonic()):
                self._tell_speakers()

    def _on_speakers(self, heard: state_pb2.NodeSpeakers) -> None:
        if self._speakers.update(heard, self._clock.monotonic()):
            self._tell_speakers()

    def _tell_speakers(self) -> None:
        for member in self._members():
            member.on_speakers(self._speakers.current)


class RoomHubs:
    """All rooms that this instance follows."""

    def __init__(
        self,
        rooms: RoomStore,
        messages: MessageLog,
        bus: Bus,
        clock: Clock,
        roster: RosterOptions | None = None,
        linger_s: float = LINGER_S,
    ) -> None:
        self._rooms, self._messages, self._bus, self._clock = rooms, messages, bus, clock
        self._roster, self._linger_s = roster, linger_s
        self._hubs: dict[str, RoomHub] = {}
        self._closing: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._hubs)

    async def acquire(self, room_key: str) -> RoomHub:
        """The room's hub with a complete view; to be given back by `release`. Raises UnavailableError."""
        hub = self._hubs.get(room_key)
        if hub is None:
            hub = RoomHub(room_key, self._rooms, self._messages, self._bus, self._clock, self._roster)
            self._hubs[room_key] = hub
            hub.start()
        if timer := self._closing.pop(room_key, None):
            timer.cancel()
        hub.users += 1
        try:
            await hub.wait_ready()
        except BaseException:
            self.release(hub)
            raise
        return hub

    def release(self, hub: RoomHub) -> None:
        """Gives a hub back; the last one ends it after a while."""
        hub.users -= 1
        if hub.users == 0:
            loop = asyncio.get_running_loop()
            self._closing[hub.room_key] = loop.call_later(self._linger_s, self._close, hub)

    @asynccontextmanager
    async def lease(self, room_key: str) -> AsyncIterator[RoomHub]:
        """The room's hub for a moment."""
        hub = await self.acquire(room_key)
        try:
            yield hub
        finally:
            self.release(hub)

    async def aclose(self) -> None:
        """Ends all."""
        for timer in self._closing.values():
            timer.cancel()
        await asyncio.gather(*(hub.aclose() for hub in self._hubs.values()), *self._tasks, return_exceptions=True)
        self._hubs.clear()

    def _close(self, hub: RoomHub) -> None:
        self._closing.pop(hub.room_key, None)
        if hub.users == 0 and self._hubs.pop(hub.room_key, None) is hub:
            task = asyncio.get_running_loop().create_task(hub.aclose())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
