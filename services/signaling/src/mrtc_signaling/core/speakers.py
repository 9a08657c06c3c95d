"""Merges what the nodes of a room hear into one list: the dominant speaker first, then the loudest."""

from __future__ import annotations

from dataclasses import dataclass, field

from mrtc.event.v1 import state_pb2
from mrtc_common.speakers import Levels, merged

# Nodes repeat their list each second while somebody speaks; three seconds without one is a lost node.
STALE_AFTER_S = 3.0
# Clients show a handful of frames around tiles, not a crowd.
MAX_SPEAKERS = 16

# A level that moved by less is not told: it would be twice a second to everybody.
LEVEL_STEP = 6

Speakers = Levels
"""(participant id, level 0 to 127), the dominant one first, then the loudest."""


@dataclass(slots=True)
class SpeakerMerger:
    """The speakers of one room over all its nodes."""

    current: Speakers = ()
    _by_node: dict[str, tuple[float, Levels]] = field(default_factory=dict)

    def update(self, heard: state_pb2.NodeSpeakers, now: float) -> bool:
        """Takes one node's list; True if the room's list changed."""
        if heard.tracks:
            self._by_node[heard.node_id] = (now, tuple((t.participant_id, min(t.level, 127)) for t in heard.tracks))
        else:
            self._by_node.pop(heard.node_id, None)
        return self.refresh(now)

    def refresh(self, now: float) -> bool:
        """Forgets nodes that are silent too long; True if the room's list changed."""
        self._by_node = {n: v for n, v in self._by_node.items() if now - v[0] < STALE_AFTER_S}
        newest = merged((levels for _, levels in self._by_node.values()), self.current)[:MAX_SPEAKERS]
        is_same = len(newest) == len(self.current) and all(
            before[0] == now[0] and abs(before[1] - now[1]) < LEVEL_STEP
            for before, now in zip(self.current, newest, strict=True)
        )
        if not is_same:
            self.current = newest
        return not is_same
