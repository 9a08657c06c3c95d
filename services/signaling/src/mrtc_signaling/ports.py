"""What the use cases need of the world outside. Adapters are named `<port>_<technology>`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc.media.v1 import media_service_pb2
from mrtc.recorder.v1 import recording_pb2
from mrtc.vod.v1 import vod_pb2

from .core.caps import Caps
from .core.room_view import Change, RecordingChange


class FencedError(Exception):
    """A session's record belongs to another instance now, or is gone: this one must let go of the session."""


@dataclass(frozen=True, slots=True)
class AppLimits:
    """Limits of one app; 0: none."""

    max_rooms: int = 1000
    max_participants_per_room: int = 1000
    max_publications_per_participant: int = 8
    max_egress_bps_per_participant: int = 0
    max_ingress_bps_per_participant: int = 0
    max_track_bps: int = 0
    audio_top_n: int = 0

    @property
    def caps(self) -> Caps:
        """Those of media."""
        return Caps(self.max_egress_bps_per_participant, self.max_ingress_bps_per_participant, self.max_track_bps)


@dataclass(frozen=True, slots=True)
class App:
    """An app: rooms of different apps never meet."""

    id: str
    name: str
    created_at_ms: int
    limits: AppLimits


class AppRegistry(Protocol):
    """Apps and their keys."""

    async def app(self, app_id: str) -> App | None:
        """An app."""
        ...

    async def key_secret(self, app_id: str, key_id: str) -> str | None:
        """The secret of a key that is not revoked."""
        ...


class AppKeys(Protocol):
    """The keys of apps, for whoever mints tokens beside them."""

    async def any_key(self, app_id: str) -> tuple[str, str] | None:
        """(key id, secret) of one key of an app that is not revoked."""
        ...


class RoomStore(Protocol):
    """The records of rooms, and their ordered changes. All calls raise UnavailableError while the store is away."""

    def watch(self, room_key: str) -> AsyncIterator[list[Change] | int]:
        """Changes in their order, first those that make the present state; in between, the revision that is reached.

        The first revision comes when the present state is complete. Never ends by itself; goes on after an outage with
        the differences.
        """
        ...

    async def last_revision(self, room_key: str) -> int:
        """The newest write to a room: a watch that has reached it has told all that was written before the call."""
        ...

    def watch_recordings(self, room_key: str) -> AsyncIterator[RecordingChange]:
        """Recordings of a room that begin and end, first those under way."""
        ...

    async def get_room(self, room_key: str) -> state_pb2.RoomRecord | None:
        """A room's record."""
        ...

    async def create_room(self, room_key: str, record: state_pb2.RoomRecord) -> state_pb2.RoomRecord:
        """Creates a room, or returns the record of the one that exists."""
        ...

    async def list_rooms(self, app_id: str) -> list[state_pb2.RoomRecord]:
        """The rooms of an app."""
        ...

    async def count_rooms(self, app_id: str) -> int:
        """How many rooms an app has, without reading them; those that ended in the last minute may be counted."""
        ...

    async def delete_room(self, room_key: str, record: state_pb2.RoomRecord) -> None:
        """Deletes a room's own record."""
        ...

    async def put_participant(self, room_key: str, record: state_pb2.ParticipantRecord) -> None:
        """Writes a participant."""
        ...

    async def delete_participant(
        self, room_key: str, record: state_pb2.ParticipantRecord, reason: common_pb2.LeaveReason.ValueType
    ) -> None:
        """Deletes with the reason; gives the identity up if this participant holds it."""
        ...

    async def put_publication(self, room_key: str, record: state_pb2.PublicationRecord) -> None:
        """Writes a publication."""
        ...

    async def delete_publication(self, room_key: str, record: state_pb2.PublicationRecord) -> None:
        """Deletes a publication and what was wanted of its tracks."""
        ...

    async def claim_identity(self, room_key: str, identity: str, participant_id: str) -> str:
        """Takes an identity; returns the participant that had it, empty if nobody. The newest claim wins."""
        ...

    async def want_codecs(self, room_key: str, track_id: str, codecs: Sequence[str]) -> None:
        """Notes further codecs in which a track is wanted."""
        ...


class SessionStore(Protocol):
    """The records of sessions; each expires when it is not refreshed for the grace time."""

    async def create(self, record: state_pb2.SessionRecord) -> int:
        """Writes a new record; returns its revision."""
        ...

    async def get(self, session_id: str) -> tuple[state_pb2.SessionRecord, int] | None:
        """A record and its revision."""
        ...

    async def update(self, record: state_pb2.SessionRecord, revision: int) -> int:
        """Writes over exactly this revision; returns the new one. Raises FencedError."""
        ...

    async def delete(self, session_id: str) -> None:
        """Deletes a record."""
        ...

    async def list(self) -> list[tuple[state_pb2.SessionRecord, int]]:
        """All records with their revisions."""
        ...


class Peers(Protocol):
    """The instances of this service."""

    def present(self) -> frozenset[str] | None:
        """Ids of those that serve, this one included; None: not known just now, nobody may be taken for gone."""
        ...


class MessageLog(Protocol):
    """The text messages of rooms, ordered by sequence."""

    async def publish(self, room_key: str, message: state_pb2.RoomMessage, message_id: str) -> int:
        """Stores a message; a repeated id returns the first one's sequence."""
        ...

    async def last_seq(self, room_key: str) -> int:
        """Sequence of the room's newest message; 0 if there is none."""
        ...

    async def read(self, room_key: str, after_seq: int, up_to_seq: int) -> list[tuple[int, state_pb2.RoomMessage]]:
        """Some of the stored messages after `after_seq` and up to `up_to_seq`, in order; empty: there are no more."""
        ...

    def follow(self, room_key: str, after_seq: int) -> AsyncIterator[tuple[int, state_pb2.RoomMessage]]:
        """All later messages in order, none twice, none left out; survives outages."""
        ...


class Subscription(Protocol):
    """Something that can be ended."""

    async def aclose(self) -> None:
        """Ends it."""
        ...


class Bus(Protocol):
    """What is told and not stored."""

    async def on_control(self, session_id: str, handler: Callable[[state_pb2.SessionControl], None]) -> Subscription:
        """Orders for a session."""
        ...

    async def control(self, session_id: str, order: state_pb2.SessionControl) -> None:
        """Gives an order to whoever serves a session. Raises UnavailableError."""
        ...

    async def on_http(
        self,
        instance_id: str,
        handler: Callable[[state_pb2.HttpResourceRequest], Awaitable[state_pb2.HttpResourceResponse]],
    ) -> Subscription:
        """Requests about WHIP and WHEP sessions of an instance that came to others. Raises UnavailableError."""
        ...

    async def http(
        self, instance_id: str, request: state_pb2.HttpResourceRequest
    ) -> state_pb2.HttpResourceResponse | None:
        """Asks the instance that serves a session; None: it does not answer. Raises UnavailableError."""
        ...

    async def on_speakers(self, room_key: str, handler: Callable[[state_pb2.NodeSpeakers], None]) -> Subscription:
        """Speakers of a room."""
        ...


@dataclass(frozen=True, slots=True)
class MediaNodeLost:
    """A transport's node is dead or cannot be reached.

    Args:
        is_dead: for sure: its machine says that its process is gone.
    """

    is_dead: bool = False


TransportEvent = media_service_pb2.WatchTransportsResponse | MediaNodeLost


class MediaNode(Protocol):
    """One rtcmcu. Calls raise MrtcError: of the node, or UnavailableError if it does not answer."""

    async def create_transport(
        self, request: media_service_pb2.CreateTransportRequest
    ) -> media_service_pb2.CreateTransportResponse:
        """See MediaService."""
        ...

    async def negotiate_transport(
        self, request: media_service_pb2.NegotiateTransportRequest
    ) -> media_service_pb2.NegotiateTransportResponse:
        """See MediaService."""
        ...

    async def export_transport(self, transport_id: str, *, is_final: bool) -> bytes:
        """See MediaService."""
        ...

    async def checkpoints(self, transport_ids: Sequence[str]) -> dict[str, bytes]:
        """See MediaService; by transport id."""
        ...

    async def complete_transport(self, transport_id: str, state: bytes) -> None:
        """See MediaService."""
        ...

    async def close_transport(self, transport_id: str) -> None:
        """See MediaService."""
        ...

    async def publish_tracks(self, transport_id: str, tracks: Sequence[common_pb2.Track]) -> list[common_pb2.Track]:
        """See MediaService."""
        ...

    async def unpublish_tracks(self, transport_id: str, track_ids: Sequence[str]) -> None:
        """See MediaService."""
        ...

    async def set_caps(self, transport_id: str, caps: Caps) -> None:
        """See MediaService."""
        ...

    async def set_track_cap(self, transport_id: str, track_id: str, max_bitrate_bps: int) -> None:
        """See MediaService."""
        ...

    async def mute_track(self, transport_id: str, track_id: str, is_muted: bool) -> None:
        """See MediaService."""
        ...

    async def set_subscriptions(
        self, transport_id: str, subscriptions: Sequence[media_service_pb2.Subscription], audio_top_n: int = 0
    ) -> media_service_pb2.SetSubscriptionsResponse:
        """See MediaService."""
        ...

    async def set_data_peers(self, transport_id: str, node_ids: Sequence[str]) -> None:
        """See MediaService."""
        ...

    async def stats(self, transport_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Figures of these transports in one call, as docs/stats.md describes `Transport`; unknown ones are missing."""
        ...


class MediaNodes(Protocol):
    """All rtcmcu nodes."""

    async def place(
        self, room_key: str, room_node_ids: Sequence[str], excluded_node_ids: Sequence[str], *, is_relief: bool = False
    ) -> str:
        """Asks the master where to put a participant; returns a node id. Raises NoCapacityError, UnavailableError.

        Args:
            is_relief: he has a place, on a node that is too full.
        """
        ...

    async def node(self, node_id: str) -> MediaNode:
        """A node by id. Raises UnavailableError if it is not known."""
        ...

    def listen(self, node_id: str, transport_id: str, listener: Callable[[TransportEvent], None]) -> None:
        """Calls the listener for every event of a transport, until `unlisten`."""
        ...

    def refresh(self, node_id: str, transport_id: str) -> None:
        """Has the present state of a transport told to its listener, as events that may repeat what was told."""
        ...

    def unlisten(self, transport_id: str) -> None:
        """Ends that."""
        ...


class Jobs(Protocol):
    """Recordings and vods: their records, and the queue that workers take them from."""

    async def start_recording(self, recording: recording_pb2.Recording) -> None:
        """Writes the record and queues the job."""
        ...

    async def list_recordings(self, app_id: str, room: str = "") -> list[recording_pb2.Recording]:
        """Those of an app, or of one room."""
        ...

    async def stop_recording(self, app_id: str, recording_id: str) -> recording_pb2.Recording:
        """Asks for its end. Raises NotFoundError."""
        ...

    async def start_vod(self, vod: vod_pb2.Vod) -> None:
        """Writes the record and queues the job."""
        ...

    async def list_vods(self, app_id: str, room: str = "") -> list[vod_pb2.Vod]:
        """Those of an app, or of one room."""
        ...

    async def stop_vod(self, app_id: str, vod_id: str) -> vod_pb2.Vod:
        """Asks for its end. Raises NotFoundError."""
        ...
