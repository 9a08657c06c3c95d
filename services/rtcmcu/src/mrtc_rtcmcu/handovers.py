"""Transports that go to other nodes and come from them while their clients keep DTLS and SRTP."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Sequence
from typing import Any

from mrtc.media.v1 import media_service_pb2 as pb
from mrtc_common.auth import derive_key
from mrtc_common.engine_errors import engine_errors
from mrtc_common.errors import MrtcError

from .core.transports import Transports
from .ports import Engine

# What an engine worker does in one turn: below a millisecond.
_CHECKPOINTS_AT_ONCE = 32


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
                    transport=transport_id, purpose="go_on" if is_final else "meet", key=self._key
                )
            if is_final:
                state.final_state = sealed
            return sealed

    async def checkpoints(self, transport_ids: Sequence[str]) -> dict[str, bytes]:
        """The sealed states with which another node goes on if this one dies, of those transports that have one."""
        found: dict[str, bytes] = {}

        async def take(transport_id: str) -> None:
            # One that is gone, is not connected, was handed over, has data channels or sends too quickly has none.
            with contextlib.suppress(MrtcError), engine_errors():
                found[transport_id] = await self._engine.export_transport(
                    transport=transport_id, purpose="checkpoint", key=self._key
                )

        for start in range(0, len(transport_ids), _CHECKPOINTS_AT_ONCE):
            await asyncio.gather(*(take(one) for one in transport_ids[start : start + _CHECKPOINTS_AT_ONCE]))
        return found

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
