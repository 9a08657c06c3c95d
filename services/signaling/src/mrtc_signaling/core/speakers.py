"""Merges what the nodes of a room hear into one list, loudest first."""

from __future__ import annotations

from dataclasses import dataclass, field

from mrtc.event.v1 import state_pb2

# Nodes repeat their list at least twice a second while somebody speaks; three seconds without one is a lost node.
STALE_AFTER_S = 3.0
# Clients show a handful of frames around tiles, not a crowd.
MAX_SPEAKERS = 16

Speakers = tuple[tuple[str, int], ...]
"""(participant id, level 0 to 127), loudest first."""


@dataclass(slots=True)
class SpeakerMerger:
    """The speakers of one room over all its nodes."""

    current: Speakers = ()
    _by_node: dict[str, tuple[float, tuple[tuple[str, int], ...]]] = field(default_factory=dict)

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
        levels: dict[str, int] = {}
        for _, tracks in self._by_node.values():
            for participant_id, level in tracks:
                levels[participant_id] = max(level, levels.get(participant_id, 0))
        merged = tuple(sorted(levels.items(), key=lambda item: (-item[1], item[0])))[:MAX_SPEAKERS]
        changed, self.current = merged != self.current, merged
        return changed
