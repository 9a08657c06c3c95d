"""Keeps what a client's receive m-lines carry and notices when there are too few."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mrtc.common.v1 import common_pb2
from mrtc.media.v1 import media_service_pb2
from mrtc.signaling.v1 import client_pb2

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

    def update(self, slots: Iterable[media_service_pb2.Slot], transport_id: str = "", version: int = 0) -> bool:
        """Takes the node's map; True if it is another than before. An older one of the same transport is none."""
        if self._version[0] == transport_id and version < self._version[1]:
            return False
        self._version = (transport_id, version)
        fresh = tuple((slot.mid, slot.track_id) for slot in slots)
        changed, self.current = fresh != self.current, fresh
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
