"""Makes one list of speakers of several: of a node's workers, of a room's nodes."""

from __future__ import annotations

from collections.abc import Iterable

Levels = tuple[tuple[str, int], ...]
"""(track or participant, level 0 to 127), the dominant one first, then the loudest."""

MARGIN = 3
"""Who has the floor keeps it while nobody else that has one, elsewhere, is so much louder (dB)."""


def merged(lists: Iterable[Levels], former: Levels = ()) -> Levels:
    """One list, each name once. Each list's first has the floor there; `former` says who had it of all."""
    given = [levels for levels in lists if levels]
    loudest: dict[str, int] = {}
    for name, level in (entry for levels in given for entry in levels):
        loudest[name] = max(level, loudest.get(name, 0))
    ranked = sorted(loudest.items(), key=lambda item: (-item[1], item[0]))
    heads = {levels[0][0] for levels in given}
    if not heads:
        return ()
    holder = former[0][0] if former else ""
    first = next(name for name, _ in ranked if name in heads)
    if holder in heads and loudest[holder] + MARGIN > loudest[first]:
        first = holder
    return ((first, loudest[first]), *(item for item in ranked if item[0] != first))
