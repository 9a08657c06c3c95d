"""Keeps what a client's receive m-lines carry and notices when there are too few."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mrtc.common.v1 import common_pb2
from mrtc.media.v1 import media_service_pb2
from mrtc.signaling.v1 import client_pb2
from mrtc_common.ids import track_of_media

SlotMap = tuple[tuple[str, str], ...]
"""(mid, track id or empty) of every slot, in the order of the m-lines."""


@dataclass(slots=True)
class SlotTable:
    """The slots of one transport."""

    current: SlotMap = ()
    # Transport and version of the map.
    _version: tuple[str, int] = ("", 0)
    # The last need told to the client, so that it is not told again while it is the same.
    _told_need: tuple[int, int] = field(default=(0, 0))
    # Kinds of the tracks that the client had when it was told last.
    _had: dict[str, int] = field(default_factory=dict)

    def update(
        self,
        slots: Iterable[media_service_pb2.Slot],
        transport_id: str = "",
        version: int = 0,
        missing_ids: Iterable[str] = (),
    ) -> bool:
        """Takes the node's map; True if it is another than before. An older one of the same transport is none.

        A track that the client had and that is missing for now (its publisher's node was lost, and it is not back yet)
        is shown in a free slot: the client keeps it, silent, instead of losing it and getting it again.
        """
        if self._version[0] == transport_id and version < self._version[1]:
            return False
        self._version = (transport_id, version)
        placed = list(slots)
        kinds = {slot.mid: slot.kind for slot in placed}
        fresh = {slot.mid: track_of_media(slot.track_id) for slot in placed}
        for track_id in map(track_of_media, missing_ids):
            if track_id in self._had and track_id not in fresh.values():
                free = [mid for mid, carried in fresh.items() if not carried and kinds[mid] == self._had[track_id]]
                before = [mid for mid, carried in self.current if carried == track_id and mid in free]
                fresh.update((mid, track_id) for mid in (before or free)[:1])
        self._had = {track_id: kinds[mid] for mid, track_id in fresh.items() if track_id}
        now = tuple(fresh.items())
        changed, self.current = now != self.current, now
        return changed

    def mappings(self) -> list[client_pb2.SlotMapping]:
        """The map as the client gets it."""
        return [client_pb2.SlotMapping(mid=mid, track_id=track_id) for mid, track_id in self.current]

    def need(
        self,
        wanted: Iterable[media_service_pb2.Subscription],
        unplaced_track_ids: Iterable[str],
    ) -> client_pb2.SlotsNeeded | None:
        """The push that asks for more slots; None if there are enough or the client knows already."""
        kinds = {subscription.track_id: subscription.kind for subscription in wanted}
        unplaced = [kinds.get(track_id) for track_id in unplaced_track_ids]
        need = (unplaced.count(common_pb2.TRACK_KIND_AUDIO), unplaced.count(common_pb2.TRACK_KIND_VIDEO))
        if need == self._told_need:
            return None
        self._told_need = need
        return client_pb2.SlotsNeeded(audio=need[0], video=need[1]) if any(need) else None

    def renegotiated(self) -> None:
        """The client made a new offer: an unmet need is told again."""
        self._told_need = (0, 0)

    def clear(self) -> None:
        """The transport is gone."""
        self.current = ()
        self._told_need = (0, 0)
