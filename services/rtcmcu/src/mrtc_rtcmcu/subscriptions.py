"""What transports receive: brings tracks of other nodes here, sets the engine's slots, and follows changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from mrtc.common.v1 import common_pb2
from mrtc.media.v1 import media_service_pb2 as pb
from mrtc_common.engine_errors import engine_errors
from mrtc_common.errors import BadRequestError, LimitExceededError, MrtcError, TransportNotFoundError
from mrtc_common.ids import is_id
from mrtc_common.log import get_logger
from mrtc_common.relay import ImportResult, RelayManager
from mrtc_common.relay_types import kind_name
from mrtc_common.tasks import end_tasks

from .core.transports import Transports, TransportState
from .core.watchers import Watchers
from .ports import Engine

_log = get_logger(__name__)

_IMPORT_WAIT_S = 0.3
"""How long a call waits for tracks of other nodes; what comes later is given to the slots when it comes."""

_DEFAULT_PRIORITY = 128


class Subscriptions:
    """Sets and re-sets what transports receive.

    Args:
        make_subscription: `mrtc_engine.Subscription`.
    """

    def __init__(
        self,
        engine: Engine,
        relays: RelayManager,
        transports: Transports,
        watchers: Watchers,
        node_id: str,
        make_subscription: Callable[..., Any],
    ) -> None:
        self._engine = engine
        self._make_subscription = make_subscription
        self._relays = relays
        self._transports = transports
        self._watchers = watchers
        self._node_id = node_id
        self._tasks: set[asyncio.Task[None]] = set()
        self._stale: set[str] = set()

    async def set(
        self, transport_id: str, wanted: Sequence[pb.Subscription], limit: int, audio_top_n: int = 0
    ) -> pb.SetSubscriptionsResponse:
        """Sets the whole list, and of how many tracks of sound the loudest are heard at a time; 0: of all.

        Raises TransportNotFoundError, BadRequestError, LimitExceededError.
        """
        state = self._transports.get(transport_id)
        if len(wanted) > limit:
            raise LimitExceededError(f"at most {limit} subscriptions per transport")
        for item in wanted:
            kind_name(item.kind)
            if not all(is_id(t) for t in (item.track_id, *item.alternative_track_ids, *item.former_track_ids)):
                raise BadRequestError("track ids must be ids")
        async with state.lock:
            state.wanted = {item.track_id: item for item in wanted}
            state.audio_top_n = audio_top_n
            await self._import_missing(state)
            return await self._apply(state)

    def track_changed(self, track_id: str) -> None:
        """A track came, ended or came back: whoever wants it is looked at again soon, once for many changes."""
        for state in self._transports.wanting(track_id):
            self._look_again(state.transport_id)

    def slots_changed(self, transport_id: str, slots: Sequence[tuple[str, str, str | None]], version: int) -> None:
        """Other people are heard: the engine gave the slots of sound to them."""
        state = self._transports.find(transport_id)
        if state is None:
            return
        changed = pb.SlotsChanged(slots=_slots(slots), slots_version=version)
        known = state.subscriptions
        if known is not None and known.slots_version < version:
            del known.slots[:]
            known.slots.extend(changed.slots)
            known.slots_version = version
        self._watchers.publish(pb.WatchTransportsResponse(transport_id=transport_id, slots_changed=changed))

    def release_all(self, state: TransportState) -> None:
        """The transport has ended."""
        for track_id in state.imported:
            self._relays.release_track(track_id, holder=state.transport_id)
        state.imported.clear()

    async def aclose(self) -> None:
        """Ends what still waits."""
        await end_tasks(*self._tasks)

    def _look_again(self, transport_id: str) -> None:
        if transport_id not in self._stale:
            self._stale.add(transport_id)
            self._spawn(self._reapply(transport_id))

    async def _reapply(self, transport_id: str) -> None:
        self._stale.discard(transport_id)
        state = self._transports.find(transport_id)
        if state is None:
            return
        async with state.lock:
            before = state.subscriptions
            try:
                await self._import_missing(state)
                after = await self._apply(state)
            except MrtcError as error:
                _log.debug("subscriptions could not be set again", transport=transport_id, error=error.message)
                return
        if before is not None and after != before:
            self._watchers.publish(pb.WatchTransportsResponse(transport_id=transport_id, subscriptions=after))

    async def _import_missing(self, state: TransportState) -> None:
        """Holds every wanted track of another node and lets the others go."""
        wanted = self._wanted_imports(state)
        for track_id in state.imported - wanted.keys():
            self._relays.release_track(track_id, holder=state.transport_id)
        state.imported &= wanted.keys()
        missing = {
            track_id: node
            for track_id, node in wanted.items()
            if track_id not in state.imported or not self._relays.is_held(track_id, node, state.transport_id)
        }
        if not missing:
            return
        task = asyncio.create_task(
            self._relays.import_tracks(missing, state.room_key, holder=state.transport_id), name="import"
        )
        done, _ = await asyncio.wait({task}, timeout=_IMPORT_WAIT_S)
        if done:
            self._imported(state, task.result())
        else:
            self._spawn(self._import_late(state, task))

    async def _import_late(self, state: TransportState, task: asyncio.Task[ImportResult]) -> None:
        result = await task
        async with state.lock:
            self._imported(state, result)
        if result.tracks:
            self._look_again(state.transport_id)

    def _imported(self, state: TransportState, result: ImportResult) -> None:
        is_open = self._transports.find(state.transport_id) is state
        wanted = self._wanted_imports(state)
        for track_id in result.tracks:
            if is_open and track_id in wanted:
                state.imported.add(track_id)
            else:
                self._relays.release_track(track_id, holder=state.transport_id)
        for track_id, error in result.unreachable.items():
            _log.debug("a track cannot be imported", track=track_id, error=error.message)

    def _wanted_imports(self, state: TransportState) -> dict[str, str]:
        wanted: dict[str, str] = {}
        for item in state.wanted.values():
            if item.origin_node_id and item.origin_node_id != self._node_id:
                for track_id in (item.track_id, *item.alternative_track_ids):
                    wanted[track_id] = item.origin_node_id
        return wanted

    async def _apply(self, state: TransportState) -> pb.SetSubscriptionsResponse:
        with engine_errors():
            reply = await self._engine.set_subscriptions(
                transport=state.transport_id,
                subscriptions=[self._make_subscription(**_to_engine(item)) for item in state.wanted.values()],
                audio_top_n=state.audio_top_n,
            )
        if self._transports.find(state.transport_id) is not state:
            raise TransportNotFoundError(f"no such transport: {state.transport_id}")
        state.subscriptions = _from_engine(reply)
        return state.subscriptions

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine, name="subscriptions")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _to_engine(item: pb.Subscription) -> dict[str, Any]:
    return {
        "track": item.track_id,
        "kind": kind_name(item.kind),
        "alternatives": list(item.alternative_track_ids),
        "formers": list(item.former_track_ids),
        "max_height": item.max_height,
        "max_fps": item.max_fps,
        "is_paused": item.is_paused,
        "priority": min(255, item.priority or _DEFAULT_PRIORITY),
    }


def _from_engine(reply: Any) -> pb.SetSubscriptionsResponse:
    return pb.SetSubscriptionsResponse(
        slots=_slots(reply.slots),
        slots_version=reply.version,
        unplaced_track_ids=reply.unplaced,
        no_common_codec_track_ids=reply.no_common_codec,
        missing_track_ids=reply.missing,
    )


def _slots(slots: Sequence[tuple[str, str, str | None]]) -> list[pb.Slot]:
    kinds = {"audio": common_pb2.TRACK_KIND_AUDIO, "video": common_pb2.TRACK_KIND_VIDEO}
    return [pb.Slot(mid=mid, kind=kinds[kind], track_id=track or "") for mid, kind, track in slots]
