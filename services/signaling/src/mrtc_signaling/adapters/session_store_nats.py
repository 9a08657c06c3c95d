"""Session records in the KV bucket `mrtc_sessions`."""

from __future__ import annotations

from mrtc.event.v1 import state_pb2
from mrtc_common import subjects, tables
from mrtc_common.kv import KeyExistsError, RevisionMismatchError
from mrtc_common.nats import NatsLink

from mrtc_signaling.ports import FencedError


class NatsSessionStore:
    """See `ports.SessionStore`."""

    def __init__(self, link: NatsLink) -> None:
        self._table = tables.sessions(link)

    async def create(self, record: state_pb2.SessionRecord) -> int:
        """See the port."""
        try:
            return await self._table.create(subjects.session_key(record.session_id), record)
        except KeyExistsError:
            raise FencedError("the session exists already") from None

    async def get(self, session_id: str) -> tuple[state_pb2.SessionRecord, int] | None:
        """See the port."""
        entry = await self._table.get(subjects.session_key(session_id))
        return None if entry is None else (entry.value, entry.revision)

    async def update(self, record: state_pb2.SessionRecord, revision: int) -> int:
        """See the port."""
        try:
            return await self._table.update(subjects.session_key(record.session_id), record, revision)
        except RevisionMismatchError:
            raise FencedError("the session's record has changed") from None

    async def delete(self, session_id: str) -> None:
        """See the port."""
        await self._table.delete(subjects.session_key(session_id))

    async def list(self) -> list[tuple[state_pb2.SessionRecord, int]]:
        """See the port."""
        return [(entry.value, entry.revision) for entry in await self._table.list()]
