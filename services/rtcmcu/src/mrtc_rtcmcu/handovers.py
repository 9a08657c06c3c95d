"""Transports that go to other nodes and come from them while their clients keep DTLS and SRTP."""

from __future__ import annotations

import hashlib
from typing import Any

from mrtc.media.v1 import media_service_pb2 as pb
from mrtc_common.auth import derive_key
from mrtc_common.engine_errors import engine_errors

from .core.transports import Transports
from .ports import Engine


class Handovers:
    """Gives and takes transports. What passes between nodes is sealed with a key of the deployment's.

    Args:
        cluster_secret: that all nodes share; the key is derived from it.
    """

    def __init__(self, engine: Engine, transports: Transports, cluster_secret: str) -> None:
        self._engine, self._transports = engine, transports
        self._key = derive_key(cluster_secret, "transports on their way")

    async def export(self, transport_id: str, *, is_final: bool) -> bytes:
        """The sealed state of a transport; the final one again for who asks again.

        Raises TransportNotFoundError, BadRequestError.
        """
        state = self._transports.get(transport_id)
        async with state.lock:
            if is_final and state.final_state:
                return state.final_state
            with engine_errors():
                sealed: bytes = await self._engine.export_transport(
                    transport=transport_id, is_final=is_final, key=self._key
                )
            if is_final:
                state.final_state = sealed
            return sealed

    async def take(self, request: pb.CreateTransportRequest, caps: dict[str, int]) -> Any:
        """Opens a transport that another node has; the engine's answer. Raises EngineError."""
        return await self._engine.import_transport(
            transport=request.transport_id,
            room=request.room_key,
            offer=request.offer,
            state=request.state,
            key=self._key,
            **caps,
        )

    async def complete(self, transport_id: str, sealed: bytes) -> None:
        """Goes on where the other node ended. Raises TransportNotFoundError, BadRequestError."""
        state = self._transports.get(transport_id)
        digest = hashlib.sha256(sealed).digest()
        async with state.lock:
            if digest != state.completed_by:
                with engine_errors():
                    await self._engine.complete_transport(transport=transport_id, state=sealed, key=self._key)
                state.completed_by = digest
