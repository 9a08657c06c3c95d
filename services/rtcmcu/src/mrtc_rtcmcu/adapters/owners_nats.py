"""Who owns a transport, by the records of participants and sessions."""

from __future__ import annotations

from mrtc.event.v1 import state_pb2
from mrtc_common import subjects, tables
from mrtc_common.nats import NatsLink

from mrtc_rtcmcu.core.transports import TransportState


class NatsOwners:
    """See `ports.Owners`."""

    def __init__(self, link: NatsLink) -> None:
        self._rooms = tables.rooms(link)
        self._sessions = tables.sessions(link)

    async def know(self, transport: TransportState) -> bool:
        """See the port."""
        entry = await self._rooms.get(subjects.participant_key(transport.room_key, transport.participant_id))
        if entry is None or not isinstance(entry.value, state_pb2.ParticipantRecord):
            return False
        if entry.value.transport_id == transport.transport_id:
            return True
        # While it moves the room is shown one of its transports and the session has the other one. A session that is
        # gone takes its participant along, and then the answer is clear.
        session = await self._sessions.get(subjects.session_key(entry.value.session_id))
        return session is None or session.value.transport_id == transport.transport_id
