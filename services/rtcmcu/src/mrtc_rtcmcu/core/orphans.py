"""Decides which transports nobody knows any more: asked about now and then, and given up after two answers of no."""

from __future__ import annotations

from collections.abc import Collection


class Orphans:
    """The questions and answers about all transports of the node. Seconds are on the monotonic clock.

    Args:
        grace_s: between a transport's beginning and the first question, and between two questions: whoever made it
            needs time to write it down, and whoever lost what was written to write it again.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._ask_at: dict[str, float] = {}
        self._denied: set[str] = set()

    def due(self, transport_ids: Collection[str], now: float) -> list[str]:
        """Which of the transports that there are to ask about now."""
        self._ask_at = {one: self._ask_at.get(one, now + self._grace_s) for one in transport_ids}
        self._denied &= self._ask_at.keys()
        return [one for one, at in self._ask_at.items() if now >= at]

    def answered(self, transport_id: str, *, is_owned: bool, now: float) -> bool:
        """Takes an answer. True: the second no in a row, the transport is to end."""
        is_final = not is_owned and transport_id in self._denied
        (self._denied.discard if is_owned else self._denied.add)(transport_id)
        self._ask_at[transport_id] = now + self._grace_s
        return is_final

    def begin_anew(self) -> None:
        """Who could answer was away: what was said before counts no more, and all get their time again."""
        self._ask_at.clear()
        self._denied.clear()
