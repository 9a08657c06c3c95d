"""Keeps a vod's record in NATS equal to what the player knows, and tells what others want of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from mrtc.vod.v1 import vod_pb2
from mrtc_common.errors import UnavailableError
from mrtc_common.kv import Change, KvTable, RevisionMismatchError
from mrtc_common.log import get_logger

from mrtc_rtcvod.core.records import TERMINAL_STATES
from mrtc_rtcvod.errors import RecordLostError

_log = get_logger(__name__)

Vod = vod_pb2.Vod
_ATTEMPTS = 10


class NatsVodStore:
    """`VodStore` in bucket `mrtc_vods`. Writes are compare-and-set: a stop request is never overwritten.

    Args:
        key: key in bucket `mrtc_vods`.
        node_id: this player.
    """

    def __init__(self, table: KvTable[Vod], key: str, node_id: str) -> None:
        self._table = table
        self._key = key
        self._node_id = node_id

    async def claim(self, change: Callable[[Vod], Vod]) -> Vod:
        """Takes the record over, whoever had it. Raises RecordLostError, UnavailableError."""
        return await self._write(change, is_owned=False)

    async def update(self, change: Callable[[Vod], Vod]) -> Vod:
        """Changes the record while this player has it. Raises RecordLostError, UnavailableError."""
        return await self._write(change, is_owned=True)

    async def watch(self, on_stop: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Calls `on_stop` when the end is asked for, `on_lost` when another player took over. Never returns."""
        async with self._table.watch(self._key) as watch:
            async for item in watch:
                if not isinstance(item, Change):
                    continue
                if item.value is None:
                    # Deleted by an operator, or NATS came back without its data: it plays on.
                    continue
                if item.value.node_id not in ("", self._node_id):
                    on_lost()
                elif item.value.is_stop_requested:
                    on_stop()

    async def _write(self, change: Callable[[Vod], Vod], *, is_owned: bool) -> Vod:
        for _ in range(_ATTEMPTS):
            entry = await self._table.get(self._key)
            if entry is None or entry.value.state in TERMINAL_STATES:
                raise RecordLostError("the vod has ended")
            if is_owned and entry.value.node_id != self._node_id:
                raise RecordLostError("another player has the vod")
            changed = change(entry.value)
            if changed == entry.value:
                return changed
            with contextlib.suppress(RevisionMismatchError):
                await self._table.update(self._key, changed, entry.revision)
                return changed
            await asyncio.sleep(0.05)
        raise UnavailableError("the record changes too often")
