"""What another media node needs to go on with WHIP and WHEP clients when theirs dies, asked for again and again."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from mrtc_common.errors import MrtcError
from mrtc_common.log import get_logger
from mrtc_common.tasks import end_tasks, repeat

from mrtc_signaling.core.checkpoint import INTERVAL_S, Checkpoint

from .context import Context
from .session import Session
from .sessions import Sessions

_log = get_logger(__name__)


class Checkpoints:
    """Keeps the newest checkpoint of each session whose client would follow a call to another node."""

    def __init__(self, ctx: Context, sessions: Sessions) -> None:
        self._ctx, self._sessions = ctx, sessions
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins."""
        self._task = asyncio.create_task(repeat(self._look, INTERVAL_S, "checkpoints"), name="checkpoints")

    async def aclose(self) -> None:
        """Asks no more."""
        await end_tasks(self._task)

    async def _look(self) -> None:
        by_node: dict[str, list[Session]] = defaultdict(list)
        for session in self._sessions:
            if session.mover.may_revive():
                by_node[session.leg.node_id].append(session)
        await asyncio.gather(*(self._ask(node_id, sessions) for node_id, sessions in by_node.items()))
        self._ctx.metrics.checkpoints.set(sum(session.mover.can_revive() for session in self._sessions))

    async def _ask(self, node_id: str, sessions: list[Session]) -> None:
        asked_at, ids = self._ctx.clock.monotonic(), [session.leg.transport_id for session in sessions]
        try:
            found = await (await self._ctx.nodes.node(node_id)).checkpoints(ids)
        except MrtcError as error:
            # What is there grows too old: the node is away, or of a version that knows no checkpoints.
            _log.debug("no checkpoints", node_id=node_id, code=error.code_name())
            return
        for session, transport_id in zip(sessions, ids, strict=True):
            state = found.get(transport_id)
            session.checkpoint = Checkpoint(transport_id, state, asked_at) if state else None
