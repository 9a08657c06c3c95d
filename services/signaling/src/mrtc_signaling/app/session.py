"""One client's attachment to a room; outlives its connections. Composes transport, publisher and subscriber."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc.signaling.v1 import client_pb2
from mrtc_common.errors import MrtcError
from mrtc_common.ids import track_of_media
from mrtc_common.log import bound, get_logger

from mrtc_signaling.core import pushes
from mrtc_signaling.core.caps import Caps, effective
from mrtc_signaling.core.checkpoint import Checkpoint
from mrtc_signaling.core.replies import ReplyCache
from mrtc_signaling.core.room_view import CodecWanted, Event, Left, Published, RoomClosed, Unpublished
from mrtc_signaling.core.speakers import Speakers
from mrtc_signaling.core.subscriptions import SubscriptionPolicy, wanted_subscriptions
from mrtc_signaling.ports import AppLimits, MediaNodeLost, TransportEvent

from .connection import Connection
from .context import Context
from .data_peers import DataPeers
from .mover import Mover
from .publisher import Publisher
from .room_hub import RoomHub
from .subscriber import Subscriber, Wanted
from .transport_leg import TransportLeg

_log = get_logger(__name__)


class SessionOwner(Protocol):
    """Whoever keeps the sessions of this instance."""

    def end_soon(self, session: Session, reason: common_pb2.LeaveReason.ValueType) -> None:
        """Ends a session in the background."""
        ...

    def save_soon(self, session: Session) -> None:
        """Writes the session's record in the background."""
        ...

    async def assure(self, session: Session) -> None:
        """Makes sure that no other instance has the session. Raises UnavailableError."""
        ...


class Session:
    """The server's side of one participant.

    Args:
        record: as in the store; changed here, written by the owner.
        is_headless: True for WHIP and WHEP: there is no connection, the session lives while its transport does.
        wanted: decides what it receives.
    """

    def __init__(
        self,
        ctx: Context,
        owner: SessionOwner,
        hub: RoomHub,
        record: state_pb2.SessionRecord,
        revision: int,
        participant: state_pb2.ParticipantRecord,
        limits: AppLimits,
        *,
        is_headless: bool = False,
        wanted: Wanted = wanted_subscriptions,
    ) -> None:
        self.ctx, self.owner, self.hub = ctx, owner, hub
        self.record, self.revision = record, revision
        self.participant = participant
        self.limits = limits
        self.is_headless = is_headless
        self.takes_batches = is_headless or record.takes_participants_changed
        self.id = record.session_id
        self.participant_id = record.participant_id
        self.identity = record.identity
        self.room_key = record.room_key
        self.connection: Connection | None = None
        self.replies = ReplyCache()
        # Requests of one session take effect one after the other, also over a change of connection.
        self.request_lock = asyncio.Lock()
        self.save_lock = asyncio.Lock()
        self.refreshed_at = ctx.clock.monotonic()
        self.grace_ends_at: float | None = None
        self.media_lost_at: float | None = None
        self.checkpoint: Checkpoint | None = None
        self.is_ended = False
        self._message_cursor = record.joined_message_seq
        self._takes_messages = False
        # Version of the room's roster that the client has.
        self._roster_version = 0
        # Pushes before the join is answered; they follow the answer.
        self._early: list[client_pb2.ServerFrame] | None = []
        # The newest LayersWanted of each own track, told again after a resume.
        self._layers: dict[str, client_pb2.ServerFrame] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.leg = TransportLeg(
            ctx,
            record.room_key,
            self.participant_id,
            self._on_transport_event,
            identity=record.identity,
            can_publish_data=record.grants.can_publish_data,
        )
        self.data_peers = DataPeers(hub.view, self.leg)
        self.mover = Mover(self)
        self.policy = SubscriptionPolicy(
            can_subscribe=record.grants.can_subscribe,
            is_manual=record.manual_subscribe,
            wishes={w.track_id: w for w in record.wishes},
            declined=set(record.declined_track_ids),
        )
        self.subscriber = Subscriber(
            ctx,
            hub.view,
            record.room_key,
            self.participant_id,
            self.policy,
            self.leg,
            self.push,
            self._on_transport_gone,
            wanted,
            limits.audio_top_n,
        )
        self.publisher = Publisher(
            ctx,
            hub.view,
            record.room_key,
            self.id,
            self.participant_id,
            self.leg,
            self.push,
            can_publish=record.grants.can_publish and not participant.is_hidden,
            max_publications=limits.max_publications_per_participant,
        )

    # Connection

    def attach(self, connection: Connection | None) -> None:
        """The client is there: from now on it is told what happens. What it must know first is told before."""
        self.connection = connection
        self.grace_ends_at = None
        self.hub.enter(self.participant_id, self)
        self.on_nodes()
        early, self._early = self._early or [], None
        if connection is None:
            return
        for frame in early:
            if frame.WhichOneof("body") != "slots_changed":  # the snapshot has the slots
                connection.push(frame)
        if self.hub.speakers:
            connection.push(pushes.speakers_push(self.hub.speakers))

    def tell_again(self) -> None:
        """After a resume: what was pushed while nobody listened and is in no snapshot."""
        own_tracks = {t.id for r in self.publisher.publications.values() for t in r.publication.tracks}
        self._layers = {track_id: frame for track_id, frame in self._layers.items() if track_id in own_tracks}
        for frame in self._layers.values():
            self.push(frame)
        self.publisher.ask_again()
        self.subscriber.tell_again()

    def detach(self, connection: Connection) -> bool:
        """A connection ended; False if it was replaced by another already."""
        if self.connection is not connection:
            return False
        self.connection = None
        self._takes_messages = False
        return True

    def push(self, frame: client_pb2.ServerFrame) -> None:
        """Tells the client, if it is connected; what it misses is in the snapshot of its resume."""
        if self.connection is not None:
            self.connection.push(frame)
        elif self._early is not None:
            self._early.append(frame)

    def snapshot(self) -> client_pb2.RoomSnapshot:
        """The room as this participant sees it now. It is to be sent: what it says is not told again."""
        self._roster_version = self.hub.roster.head
        return pushes.snapshot(
            self.hub.view,
            room=self.hub.room,
            own=self.participant,
            own_publications=self.publisher.publications.values(),
            slots=self.subscriber.slots.mappings(),
            last_message_seq=self.hub.last_message_seq,
            roster=self.hub.roster if self.takes_batches else None,
        )

    async def deliver_messages(self, after_seq: int, connection: Connection) -> None:
        """Sends the stored messages after `after_seq`, then all that come, in order and none twice."""
        cursor = max(after_seq, self.record.joined_message_seq)
        while cursor < self.hub.last_message_seq:
            batch = await self.ctx.messages.read(self.room_key, cursor, self.hub.last_message_seq)
            for seq, message in batch:
                await connection.wait_drained()
                if pushes.is_addressed(message, self.participant_id, self.identity):
                    connection.push(pushes.message_push(seq, message))
            cursor = batch[-1][0] if batch else self.hub.last_message_seq
            if connection.is_closed or self.connection is not connection:
                return
        # No await between the last look at the hub and this: nothing slips through.
        self._message_cursor = cursor
        self._takes_messages = True

    # Room (see room_hub.Member)

    def on_event(self, event: Event) -> None:
        """Something happened in the room."""
        own_id = self.participant_id
        match event:
            case RoomClosed():
                self.owner.end_soon(self, common_pb2.LEAVE_REASON_ROOM_CLOSED)
                return
            case Left(record, reason) if record.participant.id == own_id:
                self.owner.end_soon(self, reason or common_pb2.LEAVE_REASON_CONNECTION_LOST)
                return
            case Published(record, _, _) if record.publication.participant_id == own_id:
                if not self.publisher.adopt(record):
                    return
            case Unpublished(record) if record.publication.participant_id == own_id:
                if self.publisher.publications.pop(record.publication.id, None) is None:
                    return
            case CodecWanted(track_id, _):
                self.publisher.ask_for_codecs(track_id)
            case Published(_, _, is_media_change):
                self.subscriber.mark_dirty(force=is_media_change)
            case Unpublished():
                self.subscriber.mark_dirty()
            case _:
                pass
        if frame := pushes.push_for(event, self.hub.view, own_id):
            self.push(frame)

    def on_batch(self) -> None:
        """Listeners of a large room came, changed or left."""
        if self.connection is not None:
            self.connection.push_newest("participants_changed", self._participants_changed)

    def _participants_changed(self) -> client_pb2.ServerFrame | None:
        message, self._roster_version = self.hub.roster.changes(self._roster_version, self.participant_id)
        return client_pb2.ServerFrame(participants_changed=message) if message is not None else None

    def on_nodes(self) -> None:
        """The room's people sit on other nodes than before."""
        if self.leg.has_data:
            self.spawn(self.data_peers.tell())

    def on_speakers(self, speakers: Speakers) -> None:
        """Other people speak."""
        if self.record.grants.can_subscribe:
            self.push(pushes.speakers_push(speakers))

    def on_message(self, seq: int, message: state_pb2.RoomMessage) -> None:
        """A text message came."""
        if not self._takes_messages or seq <= self._message_cursor:
            return
        self._message_cursor = seq
        if pushes.is_addressed(message, self.participant_id, self.identity):
            self.push(pushes.message_push(seq, message))

    # Caps

    @property
    def caps(self) -> Caps:
        """What it may receive and send at most."""
        return effective(self.ctx.options.caps, self.limits.caps, self.record.caps)

    async def _set_caps(self, wanted: state_pb2.MediaCaps) -> None:
        """Changes the caps that are set in `wanted`; they hold at once, and for later transports."""
        async with self.request_lock:
            self.record.caps.MergeFrom(wanted)
            self.owner.save_soon(self)
            if self.leg.is_open:
                await (await self.leg.node()).set_caps(self.leg.transport_id, self.caps)

    # Orders from elsewhere

    def on_control(self, order: state_pb2.SessionControl) -> None:
        """An order of the master or another instance. Orders may come twice."""
        match order.WhichOneof("order"):
            case "end":
                self.owner.end_soon(self, order.end.reason)
            case "media_node_lost":
                if order.media_node_lost.node_id == self.leg.node_id and self.leg.is_open:
                    self.media_lost("node_lost")
            case "move_media":
                self.mover.request(order.move_media.node_id)
            case "set_caps":
                self.spawn(self._set_caps(order.set_caps))
            case "force_mute":
                self.spawn(self._force_mute(order.force_mute.track_id, order.force_mute.is_muted))

    async def _force_mute(self, track_id: str, is_muted: bool) -> None:
        async with self.request_lock:
            await self.publisher.mute(track_id, is_muted)
        record = self.publisher.record_of(track_id)
        self.push(
            client_pb2.ServerFrame(publication_updated=client_pb2.PublicationUpdated(publication=record.publication))
        )

    # Transport

    def _on_transport_event(self, event: TransportEvent) -> None:
        if isinstance(event, MediaNodeLost):
            if not (event.is_dead and self.mover.revive()):
                self.media_lost("node_lost")
            return
        match event.WhichOneof("event"):
            case "closed":
                self.media_lost(event.closed.reason or "closed")
            case "connected":
                self.mover.connected()
            case "move_wanted":
                self.mover.request(is_optional=event.move_wanted.is_optional)
            case "track_started":
                started = event.track_started
                self.spawn(self.publisher.track_started(track_of_media(started.track_id), started.codec))
            case "layers_wanted":
                told = event.layers_wanted
                wanted = client_pb2.LayersWanted(
                    track_id=track_of_media(told.track_id), rids=told.rids, spatial_layers=told.spatial_layers
                )
                self._layers[wanted.track_id] = client_pb2.ServerFrame(layers_wanted=wanted)
                self.push(self._layers[wanted.track_id])
            case "slots_changed":
                self.subscriber.slots_changed(event.slots_changed)
            case "subscriptions":
                # The node's own doing (a relay came back or was lost): asked anew, the node answers with what is.
                self.subscriber.mark_dirty(force=True)
            case _:
                pass

    def _on_transport_gone(self) -> None:
        self.media_lost("transport_not_found")

    def media_lost(self, reason: str) -> None:
        """The transport is gone: the client is told to make another; a headless session ends."""
        if not self.leg.is_open or self.is_ended:
            return
        self.ctx.metrics.media_lost.labels(reason).inc()
        _log.warning("transport lost", reason=reason, node_id=self.leg.node_id, session=self.id)
        self.leg.lose(with_node=reason in ("node_lost", "node_shutdown"))
        self.subscriber.lost()
        if self.is_headless:
            self.owner.end_soon(self, _headless_leave_reason(reason))
            return
        self.media_lost_at = self.ctx.clock.monotonic()
        self.push(
            client_pb2.ServerFrame(media_lost=client_pb2.MediaLost(message=_MEDIA_LOST_TEXTS.get(reason, reason)))
        )

    def media_is_back(self) -> None:
        """A transport was opened."""
        self.media_lost_at = None
        self.record.node_id = self.participant.node_id = self.leg.node_id
        self.record.transport_id = self.participant.transport_id = self.leg.transport_id
        self.on_nodes()

    async def show_media(self) -> None:
        """Shows the room where its media is now. Raises UnavailableError."""
        await self.ctx.rooms.put_participant(self.room_key, self.participant)
        await self.publisher.write(list(self.publisher.publications.values()))

    # Inside

    def sync_record(self) -> None:
        """Writes what changed in memory into the record."""
        self.record.is_connected = self.connection is not None or self.is_headless
        self.record.last_request_id = self.replies.last_request_id
        del self.record.lines[:]
        self.record.lines.extend(self.leg.lines.values())
        del self.record.wishes[:]
        self.record.wishes.extend(self.policy.wishes.values())
        del self.record.declined_track_ids[:]
        self.record.declined_track_ids.extend(sorted(self.policy.declined))

    def spawn(self, work: Coroutine[Any, Any, None], on_error: Callable[[MrtcError], None] | None = None) -> None:
        """Runs a step of this session in the background; a failure is logged, not raised."""

        async def run() -> None:
            with bound(session=self.id, participant=self.participant_id, room=self.room_key):
                try:
                    await work
                except MrtcError as error:
                    _log.warning("a background step failed", code=error.code_name(), error=error.message)
                    if on_error is not None:
                        on_error(error)
                except Exception:
                    _log.exception("a background step failed")

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """Stops everything that runs in the background; nothing is told to anybody."""
        self.is_ended = True
        self.hub.leave(self.participant_id, self)
        self.subscriber.close()
        for task in self._tasks:
            task.cancel()


_MEDIA_LOST_TEXTS = {
    "node_lost": "the media server is gone; make a new peer connection",
    "ice_timeout": "no media path any more; make a new peer connection",
    "dtls_failed": "the encryption handshake failed; make a new peer connection",
    "peer_closed": "the peer connection was closed by the client",
    "node_shutdown": "the media server goes away; make a new peer connection",
    "transport_not_found": "the media server does not know the transport; make a new peer connection",
}


def _headless_leave_reason(reason: str) -> common_pb2.LeaveReason.ValueType:
    match reason:
        case "peer_closed":
            return common_pb2.LEAVE_REASON_CLIENT_REQUEST
        case "ice_timeout":
            return common_pb2.LEAVE_REASON_CONNECTION_LOST
        case _:
            return common_pb2.LEAVE_REASON_MEDIA_FAILURE
