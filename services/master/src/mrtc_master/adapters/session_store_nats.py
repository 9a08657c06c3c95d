"""Session records in the KV bucket `mrtc_sessions`, kept alive."""

from __future__ import annotations

import contextlib

from mrtc_common import subjects, tables
from mrtc_common.errors import MrtcError
from mrtc_common.kv import RevisionMismatchError
from mrtc_common.nats import NatsLink


class NatsSessionStore:
    """See `ports.SessionStore`."""

    def __init__(self, link: NatsLink) -> None:
        self._sessions = tables.sessions(link)

    async def keep(self, session_id: str) -> None:
        """See the port. Never raises: what fails is tried in the next round."""
        with contextlib.suppress(MrtcError, RevisionMismatchError):
            key = subjects.session_key(session_id)
            entry = await self._sessions.get(key)
            if entry is not None:
                await self._sessions.update(key, entry.value, entry.revision)
