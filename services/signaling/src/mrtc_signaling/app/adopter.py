"""WHIP and WHEP sessions of instances that are gone: nobody comes to resume them, so the others take them over."""

from __future__ import annotations

import asyncio
import random

from mrtc.event.v1 import state_pb2
from mrtc_common.errors import MrtcError, SessionNotFoundError
from mrtc_common.log import get_logger
from mrtc_common.tasks import end_tasks, repeat

from mrtc_signaling.ports import FencedError, Peers

from .context import Context
from .http_sessions import HttpSessions

_log = get_logger(__name__)

_INTERVAL_S = 0.5


class Adopter:
    """Looks through the sessions whenever an instance went, and when this one begins; else it costs nothing."""

    def __init__(self, ctx: Context, sessions: HttpSessions, peers: Peers) -> None:
        self._ctx = ctx
        self._sessions = sessions
        self._peers = peers
        self._known: frozenset[str] = frozenset()
        self._is_due = True
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins."""
        self._task = asyncio.create_task(repeat(self._look, _INTERVAL_S, "adopt"), name="adopter")

    async def aclose(self) -> None:
        """Takes nothing over any more."""
        await end_tasks(self._task)

    async def _look(self) -> None:
        present = self._peers.present()
        if present is None:
            return
        self._is_due = self._is_due or bool(self._known - present)
        self._known = present
        if self._is_due:
            self._is_due = not await self._adopt_all(present | {self._ctx.instance_id})

    async def _adopt_all(self, present: frozenset[str]) -> bool:
        """True if none is left that could not be had."""
        left = [found for found in await self._ctx.sessions.list() if _is_orphan(found[0], present)]
        # Each instance in an order of its own: they share the work.
        random.shuffle(left)
        is_done = True
        for record, revision in left:
            try:
                await self._sessions.adopt(record, revision)
            except (FencedError, SessionNotFoundError):
                continue  # somebody else has it, or it is over
            except MrtcError as error:
                _log.warning("a session cannot be taken over yet", session=record.session_id, error=error.message)
                is_done = False
        return is_done


def _is_orphan(record: state_pb2.SessionRecord, present: frozenset[str]) -> bool:
    return record.HasField("http") and record.owner_id not in present
