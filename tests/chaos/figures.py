"""What a run cost, as the one JSON line at its end."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Losses:
    """Messages that the server has taken, and what must be zero."""

    messages: int = 0
    messages_lost: int = 0
    messages_doubled: int = 0
    ghosts: int = 0
    orphan_jobs: int = 0
    leaked_descriptors: int = 0

    @property
    def has_lost(self) -> bool:
        """True if something is that must not be."""
        lost = self.messages_lost or self.messages_doubled
        return bool(lost or self.ghosts or self.orphan_jobs or self.leaked_descriptors)

    def of_messages(self) -> dict[str, int]:
        """For the JSON line."""
        return {
            "messages": self.messages,
            "messages_lost": self.messages_lost,
            "messages_doubled": self.messages_doubled,
            "ghosts": self.ghosts,
            "orphan_jobs": self.orphan_jobs,
            "leaked_descriptors": self.leaked_descriptors,
        }


@dataclass
class Figures(Losses):
    """Longest gaps in milliseconds, one per participant and trial, and what must be zero.

    Attributes:
        recording_losses: milliseconds that a recording lacks after its recorder died or drained, one per trial.
        mix_losses: the same of mixed recordings, by what is seen and heard in them.
        mix_container_losses: the same if the mixing process dies with its recorder.
        recording_node_losses: the same after the media node that it listened at did.
    """

    moves: list[float] = field(default_factory=list)
    drains: list[float] = field(default_factory=list)
    media_kills: list[float] = field(default_factory=list)
    freezes: list[float] = field(default_factory=list)
    signaling_kills: list[float] = field(default_factory=list)
    master_kills: list[float] = field(default_factory=list)
    nats_down: list[float] = field(default_factory=list)
    joins_after_nats: list[float] = field(default_factory=list)
    recording_losses: list[float] = field(default_factory=list)
    mix_losses: list[float] = field(default_factory=list)
    mix_container_losses: list[float] = field(default_factory=list)
    recording_node_losses: list[float] = field(default_factory=list)

    def line(self) -> str:
        """The JSON line; `*_trials` says of how many figures a percentile is."""
        moved = self.moves + self.drains
        values: dict[str, float | int | None] = {
            "move_gap_ms_p95": percentile(moved, 95),
            "move_gap_ms_max": percentile(moved, 100),
            "move_trials": len(moved),
            "mcu_kill_gap_ms_p50": percentile(self.media_kills, 50),
            "mcu_kill_gap_ms_p95": percentile(self.media_kills, 95),
            "mcu_kill_trials": len(self.media_kills),
            "mcu_freeze_gap_ms_max": percentile(self.freezes, 100),
            "mcu_freeze_trials": len(self.freezes),
            "signaling_kill_media_gap_ms_max": percentile(self.signaling_kills, 100),
            "signaling_kill_trials": len(self.signaling_kills),
            "master_kill_media_gap_ms_max": percentile(self.master_kills, 100),
            "master_kill_trials": len(self.master_kills),
            "nats_down_media_gap_ms_max": percentile(self.nats_down, 100),
            "nats_down_trials": len(self.nats_down),
            "join_after_nats_ms_max": percentile(self.joins_after_nats, 100),
            "recording_lost_ms_max": percentile(self.recording_losses, 100),
            "recording_trials": len(self.recording_losses),
            "mix_lost_ms_max": percentile(self.mix_losses, 100),
            "mix_trials": len(self.mix_losses),
            "mix_container_lost_ms_max": percentile(self.mix_container_losses, 100),
            "mix_container_trials": len(self.mix_container_losses),
            "recording_mcu_lost_ms_max": percentile(self.recording_node_losses, 100),
            "recording_mcu_trials": len(self.recording_node_losses),
            **self.of_messages(),
        }
        return json.dumps(values)


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Nearest rank; None of nothing."""
    if not values:
        return None
    return sorted(values)[math.ceil(percent / 100 * len(values)) - 1]
