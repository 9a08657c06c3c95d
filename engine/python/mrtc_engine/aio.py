"""The engine in coroutines: each command is awaited until the worker that it concerned has replied."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar, cast

from ._engine import Engine, EngineClosed, EngineConfig, Event, Reply, SinkFrame, SourceFrame, Subscription

T = TypeVar("T")

DEFAULT_MAX_EVENTS = 65_536
"""Events that wait for the consumer of `events`; the oldest go first when there are more."""
DEFAULT_MAX_FRAMES = 1_024
"""Frames that wait for the consumer of one sink: half a minute of video."""


Purpose = Literal["meet", "go_on", "checkpoint"]
"""What a transport's state is for."""


class EngineError(Exception):
    """The engine refused a command, which had no effect.

    Attributes:
        code: one of core's `error.rs`, for example `bad_offer` or `track_not_found`.
        message: the same in words.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class _Queue(Generic[T]):
    """A bounded queue of one consumer. When it is full the oldest is dropped and counted."""

    def __init__(self, limit: int) -> None:
        self._items: deque[T] = deque()
        self._limit = limit
        self._is_closed = False
        self._waiter: asyncio.Future[None] | None = None
        self.dropped = 0

    def put(self, item: T) -> None:
        if len(self._items) >= self._limit:
            self._items.popleft()
            self.dropped += 1
        self._items.append(item)
        self._wake()

    def close(self) -> None:
        """What is in it can still be taken."""
        self._is_closed = True
        self._wake()

    async def get(self) -> T:
        """Raises StopAsyncIteration when the queue is closed and empty."""
        while not self._items:
            if self._is_closed:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise RuntimeError("only one consumer at a time")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._items.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Drain(AsyncIterator[T]):
    """Iterates over a queue; may be left and taken up again."""

    def __init__(self, queue: _Queue[T]) -> None:
        self._queue = queue

    async def __anext__(self) -> T:
        return await self._queue.get()


class AsyncEngine:
    """Worker threads that carry media, used from one event loop.

    The sockets are bound by the constructor; the loop is the one in which the first coroutine is awaited. Close it with
    `aclose` or use it as `async with`.

    Every command raises `EngineError` when the engine refuses it, `EngineBusy` when its queue is full (nothing was
    done; retry later) and `EngineClosed` when the engine is closed or has failed. A coroutine that is cancelled does
    not take its command back.

    Args:
        config: settings.
        max_events: events that wait for the consumer of `events`.
        max_frames: frames that wait for the consumer of one sink.

    Raises:
        OSError: a socket cannot be bound.
        ValueError: a setting is wrong.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        max_events: int = DEFAULT_MAX_EVENTS,
        max_frames: int = DEFAULT_MAX_FRAMES,
    ) -> None:
        self._engine = Engine(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending: dict[int, asyncio.Future[Reply]] = {}
        self._events: _Queue[Event] = _Queue(max_events)
        self._sinks: dict[str, _Queue[SinkFrame]] = {}
        self._max_frames = max_frames
        self._is_closed = False
        self._dropped_frames = 0

    async def __aenter__(self) -> AsyncEngine:
        self._attach()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not getattr(self, "_is_closed", True):
            warnings.warn("AsyncEngine was not closed: await aclose()", ResourceWarning, source=self, stacklevel=2)

    async def aclose(self) -> None:
        """Closes all transports, tells their clients, and ends the workers. Harmless when repeated."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._loop is not None:
            self._loop.remove_reader(self._engine.fileno())
        self._engine.begin_shutdown()
        await asyncio.to_thread(self._engine.finish_shutdown)
        self._fail(EngineClosed("the engine was closed"))

    @property
    def events(self) -> AsyncIterator[Event]:
        """What happens, replies left out; for one consumer. Ends when the engine is closed."""
        self._attach()
        return _Drain(self._events)

    def frames(self, sink: str) -> AsyncIterator[SinkFrame]:
        """A sink's frames, from its creation on; for one consumer. Ends when the sink or the engine is closed.

        Raises:
            KeyError: there is no such sink.
        """
        return _Drain(self._sinks[sink])

    def dropped_events(self) -> int:
        """Events that were dropped since nobody took them."""
        return self._events.dropped

    def dropped_frames(self) -> int:
        """Frames that were dropped since nobody took them, of all sinks."""
        return self._dropped_frames + sum(queue.dropped for queue in self._sinks.values())

    async def create_transport(
        self,
        *,
        transport: str,
        room: str,
        offer: str,
        max_egress_bps: int = 0,
        max_ingress_bps: int = 0,
        max_track_bps: int = 0,
    ) -> Reply.Answer:
        """Opens a transport from an SDP offer; caps: `set_caps`. `bad_offer`, `already_exists`, `limit_exceeded`."""
        command = self._engine.create_transport(
            transport=transport,
            room=room,
            offer=offer,
            max_egress_bps=max_egress_bps,
            max_ingress_bps=max_ingress_bps,
            max_track_bps=max_track_bps,
        )
        return cast(Reply.Answer, await self._run(command))

    async def export_transport(self, *, transport: str, purpose: Purpose, key: bytes) -> bytes:
        """Tells what another node needs for a connected transport without data channels.

        Args:
            purpose: `go_on`: nothing more is sent to its client from here but answers to its checks, and nothing of
                what it sends is taken, until `close_transport`, of which it hears nothing. `meet`: nothing changes, and
                the other node can only meet the client. `checkpoint`: nothing changes, and if this process dies within
                five seconds another node can go on; refused the first time, when it is not known how quickly it sends.
            key: 32 bytes that both nodes know; what is returned holds the client's SRTP keys, sealed with it.

        Raises:
            EngineError: `bad_request`: not connected, handed over before, with data channels, or too quick for a
                checkpoint; `transport_not_found`.
        """
        reply = await self._run(self._engine.export_transport(transport=transport, purpose=purpose, key=key))
        return cast(Reply.TransportState, reply).state

    async def import_transport(
        self,
        *,
        transport: str,
        room: str,
        offer: str,
        state: bytes,
        key: bytes,
        max_egress_bps: int = 0,
        max_ingress_bps: int = 0,
        max_track_bps: int = 0,
    ) -> Reply.Answer:
        """Goes on with a transport of another node. Tracks and subscriptions are made as for a new one.

        Args:
            offer: the client's: one that restarts ICE, and it gets the answer; or its last one, and the client, which
                hears nothing, is called where it was last.
            state: what `export_transport` gave. A final one is to be used once: two nodes that go on with it would seal
                different packets with the same numbers. With one that is not final nothing is sent, and what comes is
                kept (256 KiB), until `complete_transport`; `TransportConnected` tells that the client sends here now.
            key: as there.

        Raises:
            EngineError: `bad_request`: another key, a changed state or one of another version; `bad_offer`: also if the
                client's certificate differs; `already_exists`, `limit_exceeded`.
        """
        command = self._engine.import_transport(
            transport=transport,
            room=room,
            offer=offer,
            state=state,
            key=key,
            max_egress_bps=max_egress_bps,
            max_ingress_bps=max_ingress_bps,
            max_track_bps=max_track_bps,
        )
        return cast(Reply.Answer, await self._run(command))

    async def complete_transport(self, *, transport: str, state: bytes, key: bytes) -> None:
        """Goes on with a transport that was imported with a state that was not final.

        Args:
            state: the final one; used once.
            key: as in `export_transport`.

        Raises:
            EngineError: `bad_request`: the transport does not wait for this state; `transport_not_found`.
        """
        await self._run(self._engine.complete_transport(transport=transport, state=state, key=key))

    async def set_caps(
        self, *, transport: str, max_egress_bps: int = 0, max_ingress_bps: int = 0, max_track_bps: int = 0
    ) -> None:
        """Sets what a transport's client is sent and sends at most, in bit/s; 0: no limit.

        Args:
            max_egress_bps: what it is sent, all subscriptions together.
            max_ingress_bps: what it sends, all tracks together.
            max_track_bps: what each of its tracks sends; a track may have a smaller cap of its own (`set_track_cap`).
        """
        await self._run(
            self._engine.set_caps(
                transport=transport,
                max_egress_bps=max_egress_bps,
                max_ingress_bps=max_ingress_bps,
                max_track_bps=max_track_bps,
            )
        )

    async def negotiate(self, *, transport: str, offer: str) -> Reply.Answer:
        """Answers a later offer of a transport: more lines, other directions, an ICE restart."""
        return cast(Reply.Answer, await self._run(self._engine.negotiate(transport=transport, offer=offer)))

    async def close_transport(self, *, transport: str) -> None:
        """Ends a transport, its tracks and subscriptions."""
        await self._run(self._engine.close_transport(transport=transport))

    async def set_data_access(self, *, transport: str, identity: str, can_publish: bool) -> None:
        """Says who a transport's client is on data channels; before, nothing is taken of it or sent to it on them."""
        await self._run(self._engine.set_data_access(transport=transport, identity=identity, can_publish=can_publish))

    async def send_data(
        self,
        *,
        room: str,
        sender: str,
        topic: str,
        payload: bytes,
        is_reliable: bool = True,
        is_text: bool = False,
        to: list[str] | None = None,
    ) -> None:
        """Sends a message into a room on data channels, as if a participant of this node had sent it."""
        await self._run(
            self._engine.send_data(
                room=room,
                sender=sender,
                topic=topic,
                payload=payload,
                is_reliable=is_reliable,
                is_text=is_text,
                to=to or [],
            )
        )

    async def publish_track(self, *, track: str, transport: str, mid: str) -> Reply.Track:
        """Makes a track of an inbound line."""
        reply = await self._run(self._engine.publish_track(track=track, transport=transport, mid=mid))
        return cast(Reply.Track, reply)

    async def unpublish_track(self, *, track: str) -> None:
        """Ends a track of any origin."""
        await self._run(self._engine.unpublish_track(track=track))

    async def set_track_muted(self, *, track: str, is_muted: bool) -> None:
        """A muted track is not forwarded."""
        await self._run(self._engine.set_track_muted(track=track, is_muted=is_muted))

    async def set_track_cap(self, *, track: str, max_bps: int) -> None:
        """What a client's track sends at most, all layers together, in bit/s; 0: no cap of its own."""
        await self._run(self._engine.set_track_cap(track=track, max_bps=max_bps))

    async def set_subscriptions(
        self, *, transport: str, subscriptions: list[Subscription], audio_top_n: int = 0
    ) -> Reply.Slots:
        """Sets the whole list of tracks that a transport receives.

        Args:
            audio_top_n: of the tracks of sound only so many have a slot at a time, those who speak (`SlotsChanged`);
                0: each has its own.
        """
        command = self._engine.set_subscriptions(
            transport=transport, subscriptions=subscriptions, audio_top_n=audio_top_n
        )
        return cast(Reply.Slots, await self._run(command))

    async def create_source(self, *, track: str, room: str, codec: str) -> Reply.Track:
        """Makes a track that is fed by `push_frames`."""
        return cast(Reply.Track, await self._run(self._engine.create_source(track=track, room=room, codec=codec)))

    async def push_frames(self, *, track: str, frames: list[SourceFrame], late_us: int = 0) -> None:
        """Packetises frames and sends them when due.

        Args:
            late_us: how long ago the first one was due; counts for a source's very first frame, which sets its clock.
        """
        await self._run(self._engine.push_frames(track=track, frames=frames, late_us=late_us))

    async def create_sink(self, *, sink: str, track: str) -> None:
        """Delivers a track's frames to `frames(sink)`."""
        is_new = sink not in self._sinks
        if is_new:
            # Before the reply, since the first frames may come with it.
            self._sinks[sink] = _Queue(self._max_frames)
        try:
            await self._run(self._engine.create_sink(sink=sink, track=track))
        except BaseException:
            if is_new:
                self._forget_sink(sink)
            raise

    async def close_sink(self, *, sink: str) -> None:
        """Ends a sink; what its iterator has not taken yet can still be taken."""
        self._forget_sink(sink)
        await self._run(self._engine.close_sink(sink=sink))

    def relay_address(self, relay: str) -> str:
        """The `ip:port` at which this engine serves a relay of this id."""
        return self._engine.relay_address(relay)

    async def open_relay(
        self, *, relay: str, remote: str, tx_key: bytes, tx_salt: bytes, rx_key: bytes, rx_salt: bytes
    ) -> None:
        """Opens (or re-keys) an association with another node. Keys have 16 bytes, salts 12."""
        await self._run(
            self._engine.open_relay(
                relay=relay, remote=remote, tx_key=tx_key, tx_salt=tx_salt, rx_key=rx_key, rx_salt=rx_salt
            )
        )

    async def close_relay(self, *, relay: str) -> None:
        """Ends an association and the tracks that came over it."""
        await self._run(self._engine.close_relay(relay=relay))

    async def export_track(self, *, relay: str, track: str, handle: int) -> Reply.Track:
        """Lets a track flow out; `handle` is chosen by the receiving node."""
        reply = await self._run(self._engine.export_track(relay=relay, track=track, handle=handle))
        return cast(Reply.Track, reply)

    async def export_data(self, *, relay: str, room: str, handle: int) -> None:
        """Lets a room's data messages flow out; `handle` is chosen by the receiving node."""
        await self._run(self._engine.export_data(relay=relay, room=room, handle=handle))

    async def import_data(self, *, relay: str, room: str, handle: int) -> None:
        """Takes a room's data messages of another node."""
        await self._run(self._engine.import_data(relay=relay, room=room, handle=handle))

    async def stop_data(self, *, relay: str, room: str) -> None:
        """Stops either."""
        await self._run(self._engine.stop_data(relay=relay, room=room))

    async def unexport_track(self, *, relay: str, track: str) -> None:
        """Stops it; of a track that moved to another relay (`move_import`), what still comes over this one."""
        await self._run(self._engine.unexport_track(relay=relay, track=track))

    async def import_track(
        self, *, relay: str, track: str, room: str, handle: int, codec: str, rids: list[str]
    ) -> Reply.Track:
        """Makes a track that is fed by a relay."""
        reply = await self._run(
            self._engine.import_track(relay=relay, track=track, room=room, handle=handle, codec=codec, rids=rids)
        )
        return cast(Reply.Track, reply)

    async def move_import(self, *, relay: str, track: str, handle: int) -> Reply.Track:
        """Takes an imported track over another relay of the same address (`relay_address`): its receivers go on.

        What the former relay brings is taken too until `unexport_track` there.
        """
        reply = await self._run(self._engine.move_import(relay=relay, track=track, handle=handle))
        return cast(Reply.Track, reply)

    async def stats(self, *, transports: list[str] | None = None) -> Any:
        """Figures of transports (all, if none are named) and their tracks, as decoded JSON."""
        return await self._run_json(self._engine.stats(transports=transports or []))

    async def dump_room(self, *, room: str) -> Any:
        """A room's forwarding state, as decoded JSON."""
        return await self._run_json(self._engine.dump_room(room=room))

    async def start_capture(
        self,
        *,
        path: str,
        room: str = "",
        transport: str = "",
        is_headers_only: bool = True,
        max_bytes: int,
        max_duration_s: float,
    ) -> None:
        """Begins to write RTP and RTCP of a room or a transport, in the clear, to a new pcapng file.

        It ends by `stop_capture`, or at a limit. Raises BlockingIOError while another capture is under way, OSError if
        the file cannot be made.
        """
        # Not in a thread, though it makes a file: the reply could come before it is awaited.
        command_id = self._engine.start_capture(
            path=path,
            room=room,
            transport=transport,
            is_headers_only=is_headers_only,
            max_bytes=max_bytes,
            max_duration_ms=round(max_duration_s * 1000),
        )
        try:
            await self._run(command_id)
        except BaseException:
            # Nobody would know of it. Waits 50 ms at most, for a file that has hardly begun.
            self._engine.stop_capture()
            raise

    async def stop_capture(self) -> tuple[int, int, int, bool] | None:
        """Ends the capture; its file is whole then.

        Returns:
            Packets written, bytes of the file, copies dropped, is it running (never); None: there never was one.
        """
        return await asyncio.to_thread(self._engine.stop_capture)

    def capture_figures(self) -> tuple[int, int, int, bool] | None:
        """The same of the last capture, without ending it."""
        return self._engine.capture_figures()

    def counters(self) -> list[dict[str, int]]:
        """Per worker: monotonic counters since the start."""
        return self._engine.counters()

    def local_addresses(self) -> list[tuple[str, str]]:
        """(`udp` or `tcp`, `ip:port`) of every socket."""
        return self._engine.local_addresses()

    async def _run_json(self, command_id: int) -> Any:
        return json.loads(cast(Reply.Json, await self._run(command_id)).json)

    async def _run(self, command_id: int) -> Reply:
        self._attach()
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._pending[command_id] = future
        try:
            return await future
        finally:
            self._pending.pop(command_id, None)

    def _attach(self) -> None:
        if self._loop is None and not self._is_closed:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._engine.fileno(), self._on_ready)

    def _on_ready(self) -> None:
        try:
            events = self._engine.poll_events()
            frames = self._engine.poll_frames()
        except EngineClosed as error:
            if self._loop is not None:
                self._loop.remove_reader(self._engine.fileno())
            self._fail(error)
            return
        for event in events:
            self._dispatch(event)
        for frame in frames:
            queue = self._sinks.get(frame.sink)
            if queue is not None:
                queue.put(frame)

    def _dispatch(self, event: Event) -> None:
        if not isinstance(event, Event.Completed | Event.Failed):
            self._events.put(event)
            return
        future = self._pending.pop(event.command_id, None)
        if future is None or future.done():
            return
        if isinstance(event, Event.Completed):
            future.set_result(event.reply)
        else:
            future.set_exception(EngineError(event.code, event.message))

    def _forget_sink(self, sink: str) -> None:
        queue = self._sinks.pop(sink, None)
        if queue is not None:
            self._dropped_frames += queue.dropped
            queue.close()

    def _fail(self, error: Exception) -> None:
        for future in self._pending.values():
            if not future.done():
                future.set_exception(error)
        self._events.close()
        for sink in list(self._sinks):
            self._forget_sink(sink)
