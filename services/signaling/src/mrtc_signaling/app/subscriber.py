"""Keeps what a session receives in step with the room and its wishes, and tells the client its slots."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc.media.v1 import media_service_pb2
from mrtc.signaling.v1 import client_pb2
from mrtc_common.errors import (
    MrtcError,
    NoCommonCodecError,
    PublicationNotFoundError,
    TransportNotFoundError,
    UnavailableError,
)
from mrtc_common.ids import track_of_media
from mrtc_common.log import get_logger

from mrtc_signaling.core import codecs, limits
from mrtc_signaling.core.pushes import error_body
from mrtc_signaling.core.room_view import RoomView
from mrtc_signaling.core.slots import SlotTable
from mrtc_signaling.core.subscriptions import SubscriptionPolicy, wanted_subscriptions

from .context import Context
from .transport_leg import TransportLeg

_log = get_logger(__name__)

# A track may be known to the room a moment before its node knows it; and a node may be away for a moment.
_RETRY_DELAYS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

Wanted = Callable[[RoomView, str, SubscriptionPolicy], list[media_service_pb2.Subscription]]


class Subscriber:
    """What one session receives.

    Args:
        push: sends a push to the client, if it is connected.
        on_transport_gone: the node does not know the transport (any more).
        wanted: decides the list; WHEP players have their own.
        audio_top_n: how many others are heard at a time, unless the room says; 0: all.
    """

    def __init__(
        self,
        ctx: Context,
        view: RoomView,
        room_key: str,
        participant_id: str,
        policy: SubscriptionPolicy,
        leg: TransportLeg,
        push: Callable[[client_pb2.ServerFrame], None],
        on_transport_gone: Callable[[], None],
        wanted: Wanted = wanted_subscriptions,
        audio_top_n: int = 0,
    ) -> None:
        self.policy = policy
        self.slots = SlotTable()
        self._ctx, self._view, self._room_key, self._participant_id = ctx, view, room_key, participant_id
        self._leg, self._push, self._on_transport_gone, self._wanted = leg, push, on_transport_gone, wanted
        self._audio_top_n = audio_top_n
        self._applied: list[media_service_pb2.Subscription] | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_dirty = False
        self._retries = 0
        self._timer: asyncio.TimerHandle | None = None
        # Tracks in no codec of ours: when their publisher was asked, or None once the client was told.
        self._codec_deadlines: dict[str, float | None] = {}

    def mark_dirty(self, *, force: bool = False) -> None:
        """Something changed: brings the subscriptions in step soon. `force`: even if the list is the same."""
        if force:
            self._applied = None
        self._is_dirty = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def apply(self) -> None:
        """Brings the subscriptions in step now. Raises MrtcError."""
        async with self._leg.lock:
            await self._apply_locked()

    async def subscribe(self, wishes: Sequence[client_pb2.TrackWish]) -> None:
        """Asks for tracks. Raises PublicationNotFoundError, LimitExceededError."""
        known = {track.id for _, track in self._view.tracks()}
        self.policy.forget_tracks_but(known)
        limits.check_wishes(wishes, len(self.policy.wishes))
        for wish in wishes:
            if wish.track_id not in known:
                raise PublicationNotFoundError(f"there is no track {wish.track_id!r} in the room")
        self.policy.wish(
            state_pb2.SubscriptionWish(
                track_id=w.track_id,
                max_height=w.max_height,
                max_fps=w.max_fps,
                is_paused=w.is_paused,
                priority=w.priority,
            )
            for w in wishes
        )
        await self._apply_if_open()

    async def unsubscribe(self, track_ids: Sequence[str]) -> None:
        """Gives tracks up; unknown ones are no error, they may just have ended."""
        self.policy.forget_tracks_but({track.id for _, track in self._view.tracks()})
        self.policy.decline(i for i in track_ids if self._view.find_track(i))
        await self._apply_if_open()

    def tell_again(self) -> None:
        """The client came back: what it lacks (slots, codecs) is told anew."""
        self.slots.renegotiated()
        self._codec_deadlines.clear()
        self.mark_dirty(force=True)

    def renegotiated(self) -> None:
        """The client's m-lines changed."""
        self._applied = None
        self.slots.renegotiated()
        self._codec_deadlines.clear()

    def lost(self) -> None:
        """The transport is gone."""
        self._applied = None
        self.slots.clear()

    def close(self) -> None:
        """Stops for good."""
        if self._task is not None:
            self._task.cancel()
        if self._timer is not None:
            self._timer.cancel()

    async def _apply_if_open(self) -> None:
        if self._leg.is_open:
            await self.apply()

    async def _run(self) -> None:
        while self._is_dirty and self._leg.is_open:
            self._is_dirty = False
            try:
                await self.apply()
            except TransportNotFoundError:
                self._on_transport_gone()
            except UnavailableError:
                self._retry_later()
            except MrtcError as error:
                _log.warning("subscriptions were refused", code=error.code_name(), error=error.message)
                self._retry_later()

    async def _apply_locked(self) -> None:
        wanted = self._wanted(self._view, self._participant_id, self.policy)
        if wanted == self._applied:
            return
        if not wanted and not self._leg.has_subscriptions and self._leg.is_open:
            self._applied = wanted
            self._take_slots(
                media_service_pb2.Slot(mid=line.mid, kind=line.kind)
                for line in self._leg.lines.values()
                if not line.is_inbound
            )
            return
        node = await self._leg.node()
        self._leg.has_subscriptions = True
        with self._ctx.metrics.subscription_seconds.time():
            response = await node.set_subscriptions(self._leg.transport_id, wanted, self._top_n())
        self._applied = wanted
        self._take_slots(response.slots, response.slots_version, response.missing_track_ids)
        if needed := self.slots.need(wanted, response.unplaced_track_ids):
            self._push(client_pb2.ServerFrame(slots_needed=needed))
        await self._handle_codecs([track_of_media(track) for track in response.no_common_codec_track_ids])
        if response.missing_track_ids:
            self._applied = None
            self._retry_later()
        else:
            self._retries = 0

    def _top_n(self) -> int:
        room = self._view.room
        return (room.audio_top_n if room else 0) or self._audio_top_n

    def slots_changed(self, changed: media_service_pb2.SlotsChanged) -> None:
        """The node gave the slots of sound to those who speak now."""
        self._take_slots(changed.slots, changed.slots_version)

    def _take_slots(
        self, slots: Iterable[media_service_pb2.Slot], version: int = 0, missing_ids: Iterable[str] = ()
    ) -> None:
        if self.slots.update(slots, self._leg.transport_id, version, missing_ids):
            self._push(client_pb2.ServerFrame(slots_changed=client_pb2.SlotsChanged(slots=self.slots.mappings())))

    def _retry_later(self) -> None:
        delay = _RETRY_DELAYS_S[min(self._retries, len(_RETRY_DELAYS_S) - 1)]
        self._retries += 1
        self._call_later(delay)

    def _call_later(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay, lambda: self.mark_dirty(force=True))

    # Codecs

    async def _handle_codecs(self, track_ids: Sequence[str]) -> None:
        for gone in self._codec_deadlines.keys() - set(track_ids):
            del self._codec_deadlines[gone]
        now = self._ctx.clock.monotonic()
        for track_id in track_ids:
            if track_id not in self._codec_deadlines:
                self._codec_deadlines[track_id] = await self._ask_for_codec(track_id, now)
            deadline = self._codec_deadlines[track_id]
            if deadline is not None and now >= deadline:
                self._codec_deadlines[track_id] = None
                self._tell_codec_failure(track_id)
        pending = [d for d in self._codec_deadlines.values() if d is not None]
        if pending:
            self._call_later(max(0.05, min(pending) - now))

    async def _ask_for_codec(self, track_id: str, now: float) -> float:
        """Notes that this track is wanted in a codec of ours; returns until when to wait for it."""
        found = self._view.find_track(track_id)
        if found is None:
            return now + self._ctx.options.codec_timeout_s
        record, track = found
        askable = codecs.askable_codecs(record, track_id, self._leg.receivable_codecs(track.kind))
        if not askable:
            return now
        if not set(askable) & set(self._view.codec_wants.get(track_id, ())):
            await self._ctx.rooms.want_codecs(self._room_key, track_id, askable)
        return now + self._ctx.options.codec_timeout_s

    def _tell_codec_failure(self, track_id: str) -> None:
        found = self._view.find_track(track_id)
        if found is None:
            return
        _, track = found
        kind = "picture" if track.kind == common_pb2.TRACK_KIND_VIDEO else "sound"
        receivable = ", ".join(self._leg.receivable_codecs(track.kind)) or "none"
        error = NoCommonCodecError(
            f"this {kind} is sent as {track.codec or 'an unknown codec'}; this client can receive {receivable}, "
            "and the publisher cannot send any of these"
        )
        self._push(
            client_pb2.ServerFrame(
                subscription_failed=client_pb2.SubscriptionFailed(track_id=track_id, error=error_body(error))
            )
        )
