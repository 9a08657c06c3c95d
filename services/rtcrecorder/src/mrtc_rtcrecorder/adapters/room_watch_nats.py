"""Follows a room's records."""

from __future__ import annotations

from collections.abc import Callable

from mrtc_common import subjects
from mrtc_common.kv import Change, KvTable, SnapshotDone
from mrtc_common.tables import RoomValue

from mrtc_rtcrecorder.core.room_view import RoomView


async def follow_room(table: KvTable[RoomValue], room_key: str, view: RoomView, on_change: Callable[[], None]) -> None:
    """Keeps `view` equal to the room and calls `on_change` after each consistent change. Runs until cancelled."""
    has_snapshot = False
    async with table.watch(subjects.room_filter(room_key)) as watch:
        async for item in watch:
            if isinstance(item, Change):
                view.apply(item.key, item.value)
            elif isinstance(item, SnapshotDone):
                has_snapshot = True
            if has_snapshot:
                on_change()
