"""A room as one participant sees it: `Room.connect`, publish, receive, messages."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from aiortc import MediaStreamTrack, RTCIceServer, RTCRtpTransceiver
from aiortc.contrib.media import MediaRelay
from mrtc.common.v1 import common_pb2
from mrtc.signaling.v1 import client_pb2 as pb

from mrtc_sdk.data import DataReceived
from mrtc_sdk.errors import MrtcError, RequestFailed
from mrtc_sdk.signal import SignalClient
from mrtc_sdk.transport import Kind, Transport

_log = logging.getLogger(__name__)

# After a move the server ends the former transport; this is for the case that it cannot.
FORMER_LINGER_S = 6.0
MOVE_TIMEOUT_S = 10.0
# Events that a slow application has not taken yet; older ones are dropped beyond it, state is kept.
EVENT_QUEUE = 1024


@dataclass(frozen=True)
class RoomOptions:
    """How to join.

    Attributes:
        audio_slots: tracks of kind audio that can be received at once without a new negotiation.
        video_slots: the same for video.
        video_codecs: lower-case names to offer, best first; empty: all (vp8, h264).
        manual_subscribe: receive nothing unless asked for.
        data_channels: `publish_data` and the event `data` work.
        name: shown to people.
        metadata: opaque data.
        ice_servers: STUN and TURN servers. aiortc gathers once, before the join: those that the server names serve
            later transports only.
        is_relay_only: media goes by TURN only.
    """

    audio_slots: int = 4
    video_slots: int = 4
    video_codecs: tuple[str, ...] = ()
    manual_subscribe: bool = False
    data_channels: bool = False
    name: str = ""
    metadata: str = ""
    ice_servers: tuple[RTCIceServer, ...] = ()
    is_relay_only: bool = False


@dataclass
class RemoteTrack:
    """A track of somebody else that is mapped to a slot of ours.

    Attributes:
        id: the track.
        publication: what it belongs to.
        info: kind, source, mute.
        media: frames come from `await media.recv()`.
    """

    id: str
    publication: common_pb2.Publication
    info: common_pb2.Track
    media: MediaStreamTrack


@dataclass
class _LocalTrack:
    """An own track. During a move two peer connections send it, so each has a copy of its frames (`sent`)."""

    media: MediaStreamTrack
    kind: Kind
    sent: MediaStreamTrack
    relay: MediaRelay

    @classmethod
    def of(cls, media: MediaStreamTrack, kind: Kind) -> _LocalTrack:
        relay = MediaRelay()
        return cls(media, kind, _copy(relay, media), relay)

    def copy(self) -> MediaStreamTrack:
        """For one more peer connection."""
        return _copy(self.relay, self.media)


class Room:
    """One participant's session in one room. Made by `connect`; close with `leave` or `aclose`.

    State (`participants`, `publications`, `tracks`) is always what the server last said. Of a large room's listeners no
    more than a number are in `participants`; `unlisted_count` are not. `events` yields
    `(name, value)` as things happen: participant_joined, participant_updated, participant_left, publication_updated,
    publication_removed, track_subscribed, track_unsubscribed, message, data, speakers, recording, media_lost,
    media_restored, resumed, subscription_failed, codec_requested, layers_wanted, unlisted_count, disconnected.
    """

    def __init__(self, options: RoomOptions) -> None:
        self.options = options
        self.participants: dict[str, common_pb2.Participant] = {}
        self.unlisted_count = 0
        self.publications: dict[str, common_pb2.Publication] = {}
        self.tracks: dict[str, RemoteTrack] = {}
        self.local: common_pb2.Participant = common_pb2.Participant()
        self.session_id = ""
        self.name = ""
        self._events: asyncio.Queue[tuple[str, Any]] = asyncio.Queue(EVENT_QUEUE)
        self._slots: list[pb.SlotMapping] = []
        self._local_tracks: dict[str, _LocalTrack] = {}
        self._cids = itertools.count(1)
        self._transport: Transport | None = None
        self._signal: SignalClient | None = None
        self._negotiating = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open_transports: set[Transport] = set()
        self._ice_servers = list(options.ice_servers)
        self._is_restoring = False
        # The slots are those of a transport whose answer is still to be taken: there is nothing to map them to.
        self._is_going_over = True

    @classmethod
    async def connect(cls, url: str, token: str, room: str = "", options: RoomOptions | None = None) -> Room:
        """Joins. Media may flow when this returns and ICE is up.

        Args:
            url: base URL of the suite, `http(s)://host:port`.
            token: access token (JWT).
            room: name; empty: the token's.
            options: how to join.

        Raises:
            RequestFailed: refused; `code` says why.
            OSError: the server cannot be reached.
        """
        self = cls(options or RoomOptions())
        self._signal = SignalClient(url, self._on_push, self._on_resumed, self._on_closed, self._has_media)
        self._transport = self._new_transport()
        try:
            # Pushes may ask for another negotiation before the first has ended.
            async with self._negotiating:
                request = pb.JoinRequest(
                    token=token,
                    room=room,
                    offer=await self._transport.offer(),
                    manual_subscribe=self.options.manual_subscribe,
                    name=self.options.name,
                    metadata=self.options.metadata,
                    takes_participants_changed=True,
                    client_info="mrtc-sdk-python/0.1.0",
                )
                reply = await self._signal.join(request, self._joined)
                await self._transport.accept(reply.answer)
                self._is_going_over = False
                self._map_slots(self._slots)
        except BaseException:
            await self.aclose()
            raise
        return self

    async def publish(
        self,
        media: MediaStreamTrack,
        *,
        source: common_pb2.TrackSource.ValueType | None = None,
        tag: str = "",
        is_muted: bool = False,
        is_encrypted: bool = False,
    ) -> common_pb2.Publication:
        """Publishes one track. Raises RequestFailed.

        Args:
            is_encrypted: tells others that its frames are end-to-end encrypted. This SDK encrypts nothing itself: it is
                for applications whose `media` does. What others say is in `Track.is_encrypted`.
        """
        kind: Kind = "audio" if media.kind == "audio" else "video"
        default = common_pb2.TRACK_SOURCE_MICROPHONE if kind == "audio" else common_pb2.TRACK_SOURCE_CAMERA
        track = pb.NewTrack(
            kind=_kind(kind),
            source=source or default,
            is_muted=is_muted,
            is_encrypted=is_encrypted,
        )
        new = pb.NewPublication(tag=tag, tracks=[track], cid=f"c{next(self._cids)}")
        # A transport that took the place of this one meanwhile would not have the line.
        async with self._negotiating:
            return await self._publish(new, media, kind)

    async def _publish(self, new: pb.NewPublication, media: MediaStreamTrack, kind: Kind) -> common_pb2.Publication:
        line = await self._free_line(kind)
        local = _LocalTrack.of(media, kind)
        new.tracks[0].mid = str(line.mid)
        line.sender.replaceTrack(local.sent)

        def published(frame: pb.ServerFrame) -> None:
            publication = frame.publish.publications[0]
            self.publications[publication.id] = publication
            self._local_tracks[publication.tracks[0].id] = local

        request = pb.PublishRequest(publications=[new])
        try:
            reply = await self._active_signal.request(pb.ClientFrame(publish=request), on_reply=published)
        except RequestFailed:
            line.sender.replaceTrack(None)
            local.sent.stop()
            raise
        return reply.publish.publications[0]

    async def _free_line(self, kind: Kind) -> RTCRtpTransceiver:
        line = self._active_transport.free_line(kind)
        if line is None:
            self._active_transport.add_line(kind)
            await self._negotiate_now()
            line = self._active_transport.free_line(kind)
            if line is None:
                raise MrtcError(f"the server refused a further {kind} line")
        return line

    async def unpublish(self, publication_id: str) -> None:
        """Ends an own publication. Raises RequestFailed."""
        # A transport that is to take the place of this one would go on sending what is ended here.
        async with self._negotiating:
            publication = self.publications.pop(publication_id, None)
            for track in publication.tracks if publication else ():
                local = self._local_tracks.pop(track.id, None)
                if local is not None:
                    self._active_transport.clear(local.sent)
                    local.sent.stop()
            request = pb.UnpublishRequest(publication_id=publication_id)
            await self._active_signal.request(pb.ClientFrame(unpublish=request))

    async def mute(self, track_id: str, is_muted: bool) -> None:
        """Mutes or unmutes an own track. Raises RequestFailed."""
        request = pb.MuteRequest(track_id=track_id, is_muted=is_muted)
        await self._active_signal.request(pb.ClientFrame(mute=request))

    async def subscribe(self, *wishes: pb.TrackWish) -> None:
        """Asks for tracks, or changes what is wanted of them. Raises RequestFailed."""
        await self._active_signal.request(
            pb.ClientFrame(subscribe=pb.SubscribeRequest(wishes=wishes)),
            on_reply=lambda reply: self._map_slots(reply.subscribe.slots),
        )

    async def unsubscribe(self, *track_ids: str) -> None:
        """Gives tracks up. Raises RequestFailed."""
        await self._active_signal.request(pb.ClientFrame(unsubscribe=pb.UnsubscribeRequest(track_ids=track_ids)))

    async def send_message(self, payload: bytes, *, topic: str = "", to: tuple[str, ...] = ()) -> int:
        """Sends a text message; returns its place in the room's order. Raises RequestFailed."""
        request = pb.SendMessageRequest(payload=payload, topic=topic, to=to)
        reply = await self._active_signal.request(pb.ClientFrame(send_message=request))
        return reply.send_message.message_seq

    async def publish_data(
        self, payload: bytes | str, *, topic: str = "data", reliable: bool = True, to: tuple[str, ...] = ()
    ) -> None:
        """Sends on a data channel to everybody else, or to these identities; opens the channel at its first use.

        Raises:
            ValueError: topic, payload or addressees are out of bounds.
            MrtcError: no data channels, or the channel is closed.
        """
        data = self._active_transport.data
        if data is None:
            raise MrtcError("data channels are switched off (RoomOptions.data_channels)")
        await data.publish(payload, topic, is_reliable=reliable, to=to)

    async def next_event(self) -> tuple[str, Any]:
        """The next event, as `(name, value)`."""
        return await self._events.get()

    async def wait_for(self, condition: Callable[[Room], bool], timeout_s: float = 10.0) -> None:
        """Waits until the state satisfies a condition. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not condition(self):
                await self._changed()

    async def drop_connection(self) -> None:
        """Cuts the WebSocket as a network fault would. For tests."""
        await self._active_signal.drop_connection()

    async def leave(self) -> None:
        """Leaves the room and closes everything."""
        try:
            if self._signal is not None:
                # It may be over already, which is what was wanted, or nobody answers.
                with contextlib.suppress(MrtcError, TimeoutError):
                    await self._signal.request(pb.ClientFrame(leave=pb.LeaveRequest()))
        finally:
            # Whatever happens: a client that stays connected is a participant that stays.
            await self.aclose()

    async def aclose(self) -> None:
        """Closes everything without a leave: others see a lost connection."""
        if self._signal is not None:
            await self._signal.aclose()
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Of a move that was under way there are two: one that stayed open would be heard of by its node for ever.
        for transport in list(self._open_transports):
            await self._close(transport)

    @property
    def participant_count(self) -> int:
        """How many are in the room, oneself and the unlisted ones included."""
        return len(self.participants) + self.unlisted_count

    @property
    def transport(self) -> Transport:
        """The peer connection, for statistics."""
        return self._active_transport

    @property
    def _active_transport(self) -> Transport:
        if self._transport is None:
            raise MrtcError("not connected")
        return self._transport

    @property
    def _active_signal(self) -> SignalClient:
        if self._signal is None:
            raise MrtcError("not connected")
        return self._signal

    def _has_media(self) -> bool:
        return self._transport is not None and self._transport.pc.connectionState == "connected"

    def _new_transport(self) -> Transport:
        def on_data(message: DataReceived) -> None:
            # After a move both transports are members of the room for a moment.
            present = self._transport
            if transport is present or present is None or present.data is None or not present.data.is_open:
                self._emit("data", message)

        transport = Transport(
            self.options.audio_slots,
            self.options.video_slots,
            self.options.video_codecs,
            self._ice_servers,
            is_relay_only=self.options.is_relay_only,
            on_data=on_data if self.options.data_channels else None,
        )

        def state_changed() -> None:
            if transport is self._transport and transport.pc.connectionState == "failed":
                self._lose_media("the path to the media server is gone")

        transport.pc.on("connectionstatechange", state_changed)
        self._open_transports.add(transport)
        return transport

    async def _close(self, transport: Transport, after_s: float = 0.0) -> None:
        await asyncio.sleep(after_s)
        await transport.aclose()
        self._open_transports.discard(transport)

    def _take_ice_servers(self, servers: Iterable[pb.IceServer]) -> None:
        # The application's own come first; of the server's, only the newest credentials are kept.
        named = [RTCIceServer(list(s.urls), s.username or None, s.credential or None) for s in servers]
        self._ice_servers = [*self.options.ice_servers, *named]

    def _lose_media(self, message: str) -> None:
        """Begins to restore media, unless that is under way."""
        if not self._is_restoring:
            self._is_restoring = True
            self._emit("media_lost", message)
            self._spawn(self._restore_media())

    async def _changed(self) -> None:
        # Events are the application's; state is polled at the pace of a frame.
        await asyncio.sleep(0.01)

    async def _negotiate(self) -> None:
        async with self._negotiating:
            await self._negotiate_now()

    async def _negotiate_now(self) -> None:
        transport = self._active_transport
        request = pb.NegotiateRequest(offer=await transport.offer())
        reply = await self._active_signal.request(
            pb.ClientFrame(negotiate=request), on_reply=lambda reply: self._map_slots(reply.negotiate.slots)
        )
        await transport.accept(reply.negotiate.answer)
        self._map_slots(self._slots)

    async def _restore_media(self) -> None:
        """A new transport after the media node was lost; goes on trying while the server says that it may help."""
        try:
            while True:
                try:
                    async with self._negotiating:
                        await self._replace_transport()
                except RequestFailed as error:
                    if error.retry_after_ms is None:
                        self._emit("disconnected", f"media could not be restored: {error}")
                        return
                    await asyncio.sleep(error.retry_after_ms / 1000)
                except MrtcError:
                    return  # the session is over, which is told elsewhere
                else:
                    self._emit("media_restored", None)
                    return
        finally:
            self._is_restoring = False

    async def _move(self) -> None:
        """Goes over to another media node; what there is goes on until the new transport flows."""
        try:
            async with self._negotiating:
                await self._replace_transport(is_move=True)
        except MrtcError as error:
            _log.warning("the move to another media node failed: %s", error)

    async def _replace_transport(self, *, is_move: bool = False) -> None:
        """A new peer connection with the same publications."""
        old, new = self._active_transport, self._new_transport()
        counts = {kind: sum(1 for t in self._local_tracks.values() if t.kind == kind) for kind in ("audio", "video")}
        for _ in range(counts["audio"] - 1):
            new.add_line("audio")
        for _ in range(counts["video"] - 1):
            new.add_line("video")
        offer = await new.offer()
        copies = {track_id: local.copy() for track_id, local in self._local_tracks.items()}
        for track_id, local in self._local_tracks.items():
            line = new.free_line(local.kind)
            if line is not None:
                line.sender.replaceTrack(copies[track_id])
        mids = {track_id: new.line_of(copy) or "" for track_id, copy in copies.items()}
        request = pb.NegotiateRequest(offer=offer, new_transport=True, track_mids=mids, is_move=is_move)
        try:
            reply = await self._active_signal.request(
                pb.ClientFrame(negotiate=request), on_reply=lambda reply: self._go_over(new, reply.negotiate.slots)
            )
        except BaseException:
            await self._close(new)
            raise
        for track_id, local in self._local_tracks.items():
            local.sent = copies.get(track_id, local.sent)
        try:
            await new.accept(reply.negotiate.answer)
            if is_move:
                self._spawn(self._close(old, FORMER_LINGER_S))
                await new.connected(MOVE_TIMEOUT_S)
            else:
                self.tracks.clear()
                self._spawn(self._close(old))
        finally:
            self._is_going_over = False
        self._map_slots(self._slots)

    def _go_over(self, transport: Transport, slots: Any) -> None:
        """The slots of pushes are this transport's from now on; they are mapped when it is up."""
        self._transport, self._is_going_over, self._slots = transport, True, list(slots)

    def _joined(self, reply: pb.JoinResponse) -> None:
        self.local = reply.participant
        self.session_id = reply.session_id
        self.name = reply.snapshot.room
        self._take_ice_servers(reply.ice_servers)
        self._take_snapshot(reply.snapshot)

    async def _on_resumed(self, reply: pb.ResumeResponse) -> None:
        self._take_ice_servers(reply.ice_servers)
        self._take_snapshot(reply.snapshot)
        self._emit("resumed", None)
        if not reply.has_transport:
            self._lose_media("the media node is gone")

    def _on_closed(self, reason: str) -> None:
        self._emit("disconnected", reason)

    async def _on_push(self, frame: pb.ServerFrame) -> None:
        match frame.WhichOneof("body"):
            case "participant_joined":
                participant = frame.participant_joined.participant
                self.participants[participant.id] = participant
                self._emit("participant_joined", participant)
            case "participant_updated":
                participant = frame.participant_updated.participant
                self.participants[participant.id] = participant
                self._emit("participant_updated", participant)
            case "participant_left":
                self.participants.pop(frame.participant_left.participant_id, None)
                self._emit("participant_left", frame.participant_left)
            case "participants_changed":
                self._take_changes(frame.participants_changed)
            case "publication_updated":
                publication = frame.publication_updated.publication
                self.publications[publication.id] = publication
                self._emit("publication_updated", publication)
                self._map_slots(self._slots)
            case "publication_removed":
                self.publications.pop(frame.publication_removed.publication_id, None)
                self._emit("publication_removed", frame.publication_removed)
            case "slots_changed":
                self._map_slots(frame.slots_changed.slots)
            case "slots_needed":
                self._active_transport.add_slots(frame.slots_needed.audio, frame.slots_needed.video)
                self._spawn(self._negotiate())
            case "move_requested":
                self._spawn(self._move())
            case "media_lost":
                self._lose_media(frame.media_lost.message)
            case "message_received":
                self._emit("message", frame.message_received)
            case "speakers_changed":
                self._emit("speakers", list(frame.speakers_changed.speakers))
            case "recording_changed":
                self._emit("recording", frame.recording_changed)
            case "subscription_failed" | "codec_requested" | "layers_wanted" as name:
                self._emit(name, getattr(frame, name))

    def _take_changes(self, changes: pb.ParticipantsChanged) -> None:
        """Of the listeners of a large room; what is known already is no news."""
        for participant in changes.participants:
            before = self.participants.get(participant.id)
            self.participants[participant.id] = participant
            if before != participant:
                self._emit("participant_updated" if before else "participant_joined", participant)
        left = list(changes.left)
        if changes.is_complete:
            listed = {participant.id for participant in changes.participants} | {self.local.id}
            left = [pb.ParticipantLeft(participant_id=name) for name in self.participants.keys() - listed]
        for one in left:
            if self.participants.pop(one.participant_id, None) is not None:
                self._emit("participant_left", one)
        if self.unlisted_count != changes.unlisted_count:
            self.unlisted_count = changes.unlisted_count
            self._emit("unlisted_count", self.unlisted_count)

    def _take_snapshot(self, snapshot: pb.RoomSnapshot) -> None:
        self.participants = {p.id: p for p in snapshot.participants}
        self.unlisted_count = snapshot.unlisted_count
        self.publications = {p.id: p for p in snapshot.publications}
        self._map_slots(snapshot.slots)

    def _map_slots(self, slots: Any) -> None:
        self._slots = list(slots)
        if self._is_going_over:
            return
        wanted = {slot.track_id: slot.mid for slot in slots if slot.track_id}
        for track_id in [t for t in self.tracks if t not in wanted]:
            self._emit("track_unsubscribed", self.tracks.pop(track_id))
        for track_id, mid in wanted.items():
            media = self._active_transport.received(mid)
            found = self._find_track(track_id)
            if media is None or found is None:
                continue
            known = self.tracks.get(track_id)
            if known is None or known.media is not media:
                self.tracks[track_id] = RemoteTrack(track_id, *found, media)
                self._emit("track_subscribed", self.tracks[track_id])

    def _find_track(self, track_id: str) -> tuple[common_pb2.Publication, common_pb2.Track] | None:
        for publication in self.publications.values():
            for track in publication.tracks:
                if track.id == track_id:
                    return publication, track
        return None

    def _emit(self, name: str, value: Any) -> None:
        if self._events.full():
            self._events.get_nowait()
        self._events.put_nowait((name, value))

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _copy(relay: MediaRelay, media: MediaStreamTrack) -> MediaStreamTrack:
    # Of pictures the newest counts; of sound every frame.
    return relay.subscribe(media, buffered=media.kind == "audio")


def _kind(kind: Kind) -> common_pb2.TrackKind.ValueType:
    return common_pb2.TRACK_KIND_AUDIO if kind == "audio" else common_pb2.TRACK_KIND_VIDEO
