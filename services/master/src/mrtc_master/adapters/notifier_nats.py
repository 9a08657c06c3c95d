"""Tells sessions and services over NATS."""

from __future__ import annotations

from mrtc.event.v1 import state_pb2
from mrtc_common import subjects
from mrtc_common.nats import NatsLink


class NatsNotifier:
    """See `ports.Notifier`."""

    def __init__(self, link: NatsLink) -> None:
        self._link = link

    async def node_died(self, node_id: str) -> None:
        """Publishes `NodeDied`."""
        message = state_pb2.NodeDied(node_id=node_id)
        await self._link.publish(subjects.node_event_subject(node_id), message.SerializeToString())

    async def media_node_lost(self, session_id: str, node_id: str) -> None:
        """Publishes the order."""
        order = state_pb2.SessionControl(media_node_lost=state_pb2.MediaNodeLost(node_id=node_id))
        await self._link.publish(subjects.control_subject(session_id), order.SerializeToString())
