"""What this node knows of its transports: whose they are, what they publish, what they want."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from mrtc.common.v1 import common_pb2
from mrtc.media.v1 import media_service_pb2 as pb
from mrtc_common.errors import TransportNotFoundError

MAX_CLOSED_REMEMBERED = 10_000


@dataclass(slots=True)
class TrackState:
    """A track that a transport publishes."""

    track: common_pb2.Track
    is_started: bool = False
    wanted: pb.LayersWanted | None = None


@dataclass(slots=True)
class TransportState:
    """One transport.

    Args:
        offer_hash: of the newest offer, so that a repeated one gets the same answer.
        answer: to it, packed: it is hardly ever read again, and with many m-lines larger than all else here.
        has_data: data channels are negotiated.
        data_peers: nodes from which data messages of the room are wanted.
        identity: as on data channels; empty: they stay silent.
        final_state: what another node was given to go on with it, sealed; a repeated export returns the same.
        completed_by: SHA-256 of the final state with which this node goes on.
        lock: held while a call changes this transport; calls take effect in the order in which they came.
    """

    transport_id: str
    room_key: str
    participant_id: str
    identity: str = ""
    can_publish_data: bool = False
    has_data: bool = False
    data_peers: frozenset[str] = frozenset()
    offer_hash: bytes = b""
    answer: bytes = b""
    is_connected: bool = False
    final_state: bytes = b""
    completed_by: bytes = b""
    tracks: dict[str, TrackState] = field(default_factory=dict)
    wanted: dict[str, pb.Subscription] = field(default_factory=dict)
    audio_top_n: int = 0
    imported: set[str] = field(default_factory=set)
    subscriptions: pb.SetSubscriptionsResponse | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Transports:
    """All transports of the node, by id, and the owner of each track."""

    def __init__(self) -> None:
        self._by_id: dict[str, TransportState] = {}
        self._owner: dict[str, str] = {}
        self._closed: OrderedDict[str, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Any:
        return iter(list(self._by_id.values()))

    @property
    def closed(self) -> dict[str, str]:
        """Transports that ended lately, with the reason: a watcher that was away still learns of it."""
        return dict(self._closed)

    def room_count(self) -> int:
        """Rooms that have a transport here."""
        return len({state.room_key for state in self._by_id.values()})

    def data_peers(self, room_key: str) -> set[str]:
        """Nodes that have others of a room, as all its transports here name them."""
        return {
            node
            for state in self._by_id.values()
            if state.room_key == room_key and state.has_data
            for node in state.data_peers
        }

    def find(self, transport_id: str) -> TransportState | None:
        """The transport or None."""
        return self._by_id.get(transport_id)

    def get(self, transport_id: str) -> TransportState:
        """Raises TransportNotFoundError."""
        state = self._by_id.get(transport_id)
        if state is None:
            raise TransportNotFoundError(f"no such transport: {transport_id}")
        return state

    def add(self, state: TransportState) -> None:
        """A new transport."""
        self._by_id[state.transport_id] = state
        self._closed.pop(state.transport_id, None)

    def remove(self, transport_id: str, reason: str) -> TransportState | None:
        """Forgets a transport and its tracks; None if it is not there."""
        state = self._by_id.pop(transport_id, None)
        if state is None:
            return None
        for track_id in state.tracks:
            if self._owner.get(track_id) == transport_id:
                del self._owner[track_id]
        self._closed[transport_id] = reason
        while len(self._closed) > MAX_CLOSED_REMEMBERED:
            self._closed.popitem(last=False)
        return state

    def owner_of(self, track_id: str) -> TransportState | None:
        """The transport that publishes a track."""
        return self._by_id.get(self._owner.get(track_id, ""))

    def add_track(self, state: TransportState, track: common_pb2.Track) -> None:
        """A track is published on this transport; it may have been on another one before."""
        former = self.owner_of(track.id)
        if former is not None and former is not state:
            former.tracks.pop(track.id, None)
        state.tracks[track.id] = TrackState(track)
        self._owner[track.id] = state.transport_id

    def remove_track(self, track_id: str) -> TransportState | None:
        """Forgets a track; returns its former owner."""
        state = self._by_id.get(self._owner.pop(track_id, ""))
        if state is not None:
            state.tracks.pop(track_id, None)
        return state

    def wanting(self, track_id: str) -> list[TransportState]:
        """Transports that want a track, also as an alternative."""
        return [
            state
            for state in self._by_id.values()
            if track_id in state.wanted
            or any(track_id in wanted.alternative_track_ids for wanted in state.wanted.values())
        ]


def offer_hash(offer: str) -> bytes:
    """Tells a repeated offer from another one."""
    return hashlib.sha256(offer.encode("utf-8", "surrogatepass")).digest()
