"""MediaService."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from mrtc.media.v1 import media_service_pb2 as pb
from mrtc.media.v1 import media_service_pb2_grpc
from mrtc_common.errors import BadRequestError, MrtcError
from mrtc_common.log import bound

from mrtc_rtcmcu.captures import Captures
from mrtc_rtcmcu.figures import McuFigures
from mrtc_rtcmcu.media import Media

_MAX_IDS = 10_000
_MAX_CHECKPOINTS = 1_000


class MediaServicer(media_service_pb2_grpc.MediaServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, media: Media, captures: Captures, figures: McuFigures, max_subscriptions: int) -> None:
        self._media = media
        self._captures = captures
        self._figures = figures
        self._max_subscriptions = max_subscriptions

    async def CreateTransport(self, request: pb.CreateTransportRequest, context: Any) -> pb.CreateTransportResponse:
        """Opens a transport."""
        with self._measured("create_transport", request.transport_id, request.room_key):
            return await self._media.create_transport(request)

    async def NegotiateTransport(
        self, request: pb.NegotiateTransportRequest, context: Any
    ) -> pb.NegotiateTransportResponse:
        """Answers a later offer."""
        with self._measured("negotiate_transport", request.transport_id):
            return await self._media.negotiate_transport(request)

    async def ExportTransport(self, request: pb.ExportTransportRequest, context: Any) -> pb.ExportTransportResponse:
        """Gives a transport to another node."""
        with self._measured("export_transport", request.transport_id):
            state = await self._media.handovers.export(request.transport_id, is_final=request.is_final)
            return pb.ExportTransportResponse(state=state)

    async def CompleteTransport(
        self, request: pb.CompleteTransportRequest, context: Any
    ) -> pb.CompleteTransportResponse:
        """Goes on with a transport of another node."""
        with self._measured("complete_transport", request.transport_id):
            await self._media.handovers.complete(request.transport_id, request.state)
            return pb.CompleteTransportResponse()

    async def CheckpointTransports(
        self, request: pb.CheckpointTransportsRequest, context: Any
    ) -> pb.CheckpointTransportsResponse:
        """What another node needs if this one dies."""
        if len(request.transport_ids) > _MAX_CHECKPOINTS:
            raise BadRequestError(f"at most {_MAX_CHECKPOINTS} transports")
        with self._measured("checkpoint_transports", ""):
            found = await self._media.handovers.checkpoints(request.transport_ids)
        return pb.CheckpointTransportsResponse(
            checkpoints=[pb.TransportCheckpoint(transport_id=name, state=state) for name, state in found.items()]
        )

    async def CloseTransport(self, request: pb.CloseTransportRequest, context: Any) -> pb.CloseTransportResponse:
        """Ends a transport."""
        with self._measured("close_transport", request.transport_id):
            await self._media.close_transport(request.transport_id)
            return pb.CloseTransportResponse()

    async def PublishTracks(self, request: pb.PublishTracksRequest, context: Any) -> pb.PublishTracksResponse:
        """Makes tracks."""
        with self._measured("publish_tracks", request.transport_id):
            tracks = await self._media.publish_tracks(request.transport_id, request.tracks)
            return pb.PublishTracksResponse(tracks=tracks)

    async def UnpublishTracks(self, request: pb.UnpublishTracksRequest, context: Any) -> pb.UnpublishTracksResponse:
        """Ends tracks."""
        with self._measured("unpublish_tracks", request.transport_id):
            await self._media.unpublish_tracks(request.transport_id, request.track_ids)
            return pb.UnpublishTracksResponse()

    async def SetCaps(self, request: pb.SetCapsRequest, context: Any) -> pb.SetCapsResponse:
        """Changes what a transport is sent and sends at most."""
        with self._measured("set_caps", request.transport_id):
            await self._media.set_caps(request)
            return pb.SetCapsResponse()

    async def SetTrackCap(self, request: pb.SetTrackCapRequest, context: Any) -> pb.SetTrackCapResponse:
        """Changes what a track sends at most."""
        with self._measured("set_track_cap", request.transport_id):
            await self._media.set_track_cap(request.transport_id, request.track_id, request.max_bitrate_bps)
            return pb.SetTrackCapResponse()

    async def MuteTrack(self, request: pb.MuteTrackRequest, context: Any) -> pb.MuteTrackResponse:
        """Mutes or unmutes."""
        with self._measured("mute_track", request.transport_id):
            await self._media.mute_track(request.transport_id, request.track_id, request.is_muted)
            return pb.MuteTrackResponse()

    async def SetSubscriptions(self, request: pb.SetSubscriptionsRequest, context: Any) -> pb.SetSubscriptionsResponse:
        """Sets the whole list."""
        with self._measured("set_subscriptions", request.transport_id):
            subscriptions = self._media.subscriptions
            return await subscriptions.set(
                request.transport_id, request.subscriptions, self._max_subscriptions, request.audio_top_n
            )

    async def SetDataPeers(self, request: pb.SetDataPeersRequest, context: Any) -> pb.SetDataPeersResponse:
        """Names the nodes that have others of the room."""
        with self._measured("set_data_peers", request.transport_id):
            await self._media.set_data_peers(request.transport_id, request.node_ids)
            return pb.SetDataPeersResponse()

    async def WatchTransports(
        self, request: pb.WatchTransportsRequest, context: Any
    ) -> AsyncIterator[pb.WatchTransportsResponse]:
        """The present state, then events."""
        if len(request.transport_ids) > _MAX_IDS:
            raise BadRequestError(f"at most {_MAX_IDS} transports")
        watcher = self._media.watch(request.transport_ids)
        self._figures.watchers.set(len(self._media.watchers))
        try:
            async for event in watcher.events():
                yield event
        finally:
            self._media.watchers.remove(watcher)
            self._figures.watchers.set(len(self._media.watchers))

    async def GetStats(self, request: pb.GetStatsRequest, context: Any) -> pb.GetStatsResponse:
        """Figures."""
        if len(request.transport_ids) > _MAX_IDS:
            raise BadRequestError(f"at most {_MAX_IDS} transports")
        return pb.GetStatsResponse(json=await self._media.stats(request.transport_ids))

    async def DumpRoom(self, request: pb.DumpRoomRequest, context: Any) -> pb.DumpRoomResponse:
        """Forwarding state."""
        return pb.DumpRoomResponse(json=await self._media.dump_room(request.room_key))

    async def StartCapture(self, request: pb.StartCaptureRequest, context: Any) -> pb.StartCaptureResponse:
        """Begins to write packets to a file."""
        with self._measured("start_capture", request.transport_id, request.room_key):
            return await self._captures.start(request)

    async def StopCapture(self, request: pb.StopCaptureRequest, context: Any) -> pb.StopCaptureResponse:
        """Ends that."""
        with self._measured("stop_capture", ""):
            return await self._captures.stop(request.capture_id)

    @contextlib.contextmanager
    def _measured(self, call: str, transport_id: str, room_key: str = "") -> Iterator[None]:
        began_at = time.monotonic()
        result = "ok"
        ids = {"transport": transport_id} | ({"room": room_key} if room_key else {})
        try:
            with bound(**ids):
                yield
        except MrtcError as error:
            result = error.code_name()
            raise
        except Exception:
            result = "internal"
            raise
        finally:
            self._figures.calls.labels(call, result).inc()
            self._figures.call_seconds.labels(call).observe(time.monotonic() - began_at)
