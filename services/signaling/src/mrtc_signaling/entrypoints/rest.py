"""The REST API of an app's own servers: `/v1/apps/{app}/…`. `/docs` shows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import StreamingResponse
from mrtc.recorder.v1 import recording_pb2
from mrtc.vod.v1 import vod_pb2
from mrtc_common.errors import BadRequestError

from mrtc_signaling.app.access import Access, Authenticator
from mrtc_signaling.app.rooms import Rooms

from . import rest_models as m
from .bearer import authenticate
from .ranges import content_range, parse_range

_MODES = {"mixed": recording_pb2.RECORDING_MODE_MIXED, "single": recording_pb2.RECORDING_MODE_SINGLE}

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": m.Problem, "content": {"application/problem+json": {}}} for status in (400, 401, 403, 404, 503)
}

RoomName = Annotated[str, Path(min_length=1, max_length=128)]
Id = Annotated[str, Path(min_length=1, max_length=128)]


def make_rest_router(rooms: Rooms, authenticator: Authenticator, max_upload_bytes: int) -> APIRouter:
    """The routes."""

    async def app_access(request: Request, app: Id) -> Access:
        access = await authenticate(request, authenticator)
        access.check_admin(app)
        return access

    async def room_access(request: Request, app: Id, room: RoomName) -> Access:
        access = await authenticate(request, authenticator)
        access.check_admin(app, room)
        return access

    async def media_access(request: Request, app: Id) -> Access:
        """Room admins may add media files to their app, to play them."""
        access = await authenticate(request, authenticator)
        access.check_admin(app, access.token.room)
        return access

    async def file_access(request: Request, app: Id, room: RoomName) -> Access:
        """As `room_access`, but a video element, which cannot set headers, may bring its token in the query."""
        access = await authenticate(request, authenticator, in_query=True)
        access.check_admin(app, room)
        return access

    router = APIRouter(prefix="/v1/apps/{app}", responses=_PROBLEMS)
    _add_rooms(router, rooms, Depends(app_access), Depends(room_access))
    _add_recordings(router, rooms, Depends(app_access), Depends(room_access), Depends(file_access))
    _add_media(router, rooms, Depends(app_access), Depends(media_access), max_upload_bytes)
    _add_vods(router, rooms, Depends(room_access))
    return router


def _add_rooms(router: APIRouter, rooms: Rooms, for_app: Any, for_room: Any) -> None:
    async def room_creator(request: Request, body: m.CreateRoom, access: Access = for_app) -> m.Room:
        record = await rooms.create(
            access,
            body.name,
            metadata=body.metadata,
            max_participants=body.max_participants,
            empty_timeout_ms=body.empty_timeout_s * 1000,
            audio_top_n=body.audio_top_n,
        )
        return m.Room.of(record)

    @router.get("/rooms", tags=["rooms"])
    async def list_rooms(app: Id, access: Access = for_app) -> m.RoomList:
        """The rooms of the app, by name."""
        return m.RoomList(rooms=[m.Room.of(record) for record in await rooms.list_rooms(app)])

    @router.get("/rooms/{room}", tags=["rooms"])
    async def get_room(app: Id, room: RoomName, access: Access = for_room) -> m.RoomDetails:
        """A room with who is in it."""
        view = await rooms.view(app, room)
        assert view.room is not None
        people = [m.Participant.of(r, view.publications_of(i)) for i, r in view.participants.items()]
        return m.RoomDetails(
            **m.Room.of(view.room).model_dump(), participants=people, active_recordings=sorted(view.recordings)
        )

    @router.delete("/rooms/{room}", status_code=204, tags=["rooms"])
    async def delete_room(app: Id, room: RoomName, access: Access = for_room) -> Response:
        """Closes a room: everybody is taken out."""
        await rooms.delete(app, room)
        return Response(status_code=204)

    @router.get("/rooms/{room}/participants", tags=["participants"])
    async def list_participants(app: Id, room: RoomName, access: Access = for_room) -> m.ParticipantList:
        """Who is in the room, hidden ones too."""
        view = await rooms.view(app, room)
        return m.ParticipantList(
            participants=[m.Participant.of(r, view.publications_of(i)) for i, r in view.participants.items()]
        )

    @router.get("/rooms/{room}/stats", tags=["rooms"])
    async def get_stats(app: Id, room: RoomName, access: Access = for_room) -> m.RoomStats:
        """What everybody in the room sends and receives, as docs/stats.md describes it."""
        found = await rooms.stats(app, room)
        return m.RoomStats(participants=[m.ParticipantStats.of(record, stats) for record, stats in found])

    @router.delete("/rooms/{room}/participants/{participant}", status_code=204, tags=["participants"])
    async def remove_participant(app: Id, room: RoomName, participant: Id, access: Access = for_room) -> Response:
        """Takes a participant out, named by its id or identity."""
        await rooms.remove(app, room, participant)
        return Response(status_code=204)

    @router.post("/rooms/{room}/participants/{participant}/move", status_code=202, tags=["participants"])
    async def move_participant(
        app: Id, room: RoomName, participant: Id, body: m.Move, access: Access = for_room
    ) -> Response:
        """Moves a participant's media to another media node while the call goes on."""
        await rooms.move(app, room, participant, body.node)
        return Response(status_code=202)

    @router.post("/rooms/{room}/tracks/{track}/mute", tags=["participants"])
    async def mute_track(app: Id, room: RoomName, track: Id, body: m.Mute, access: Access = for_room) -> m.Publication:
        """Mutes or unmutes somebody's track."""
        return m.Publication.of(await rooms.mute(app, room, track, body.is_muted))

    @router.post("/rooms/{room}/participants/{participant}/caps", status_code=202, tags=["participants"])
    async def set_caps(app: Id, room: RoomName, participant: Id, body: m.Caps, access: Access = for_room) -> Response:
        """Changes what a participant may receive and send at most, while the call goes on."""
        await rooms.set_caps(app, room, participant, body.to_proto())
        return Response(status_code=202)

    @router.post("/rooms/{room}/tracks/{track}/cap", tags=["participants"])
    async def set_track_cap(
        app: Id, room: RoomName, track: Id, body: m.TrackCap, access: Access = for_room
    ) -> m.Publication:
        """Changes what somebody's track may send at most, while the call goes on."""
        return m.Publication.of(await rooms.set_track_cap(app, room, track, body.max_bitrate_bps))

    @router.post("/rooms/{room}/messages", status_code=201, tags=["messages"])
    async def send_message(app: Id, room: RoomName, body: m.SendMessage, access: Access = for_room) -> m.MessageSent:
        """Sends a text message in the name of the app."""
        try:
            payload = body.payload()
        except ValueError as error:
            raise BadRequestError(str(error)) from None
        return m.MessageSent(message_seq=await rooms.send_message(app, room, payload, body.topic, body.to))

    router.add_api_route(
        "/rooms",
        room_creator,
        methods=["POST"],
        status_code=201,
        tags=["rooms"],
        name="create_room",
        summary="Create Room",
        description="Creates a room; without it a room is created when somebody joins.",
        responses={409: {"model": m.Problem}},
    )


def _add_recordings(router: APIRouter, rooms: Rooms, for_app: Any, for_room: Any, for_file: Any) -> None:
    @router.get("/recordings", tags=["recordings"])
    async def list_app_recordings(app: Id, access: Access = for_app) -> m.RecordingList:
        """Recordings of all rooms."""
        return m.RecordingList(recordings=[m.Recording.of(r) for r in await rooms.recordings(app, "")])

    @router.get("/rooms/{room}/recordings", tags=["recordings"])
    async def list_recordings(app: Id, room: RoomName, access: Access = for_room) -> m.RecordingList:
        """Recordings of a room."""
        return m.RecordingList(recordings=[m.Recording.of(r) for r in await rooms.recordings(app, room)])

    @router.post("/rooms/{room}/recordings", status_code=201, tags=["recordings"])
    async def start_recording(
        app: Id, room: RoomName, body: m.StartRecording, access: Access = for_room
    ) -> m.Recording:
        """Starts a recording; it begins when somebody sends media and ends by `stop` or with the room."""
        recording = recording_pb2.Recording(
            app_id=app,
            room=room,
            mode=_MODES[body.mode],
            width=body.width,
            height=body.height,
            fps=body.fps,
            identities=body.identities,
            tag_prefix=body.tag_prefix,
        )
        return m.Recording.of(await rooms.start_recording(recording))

    @router.get("/rooms/{room}/recordings/{recording}", tags=["recordings"])
    async def get_recording(app: Id, room: RoomName, recording: Id, access: Access = for_room) -> m.Recording:
        """A recording with its files."""
        return m.Recording.of(await rooms.recording(app, room, recording))

    @router.post("/rooms/{room}/recordings/{recording}/stop", status_code=202, tags=["recordings"])
    async def stop_recording(app: Id, room: RoomName, recording: Id, access: Access = for_room) -> m.Recording:
        """Asks for its end; the files are complete when its state says so."""
        return m.Recording.of(await rooms.stop_recording(app, room, recording))

    path = "/rooms/{room}/recordings/{recording}/files/{name}"

    @router.head(path, include_in_schema=False)
    @router.get(path, tags=["recordings"], response_class=StreamingResponse)
    async def get_recording_file(
        request: Request, app: Id, room: RoomName, recording: Id, name: Id, access: Access = for_file
    ) -> Response:
        """A file, whole or a range of it; it may still grow. The token may be given as `access_token`."""
        file, info = await rooms.recording_file(app, room, recording, name)
        headers = {
            "Accept-Ranges": "bytes",
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
            "Content-Disposition": f'inline; filename="{name}"',
        }
        wanted = parse_range(request.headers.get("range", ""), info.size_bytes)
        if wanted is None and request.headers.get("range", "").startswith("bytes=") and info.size_bytes:
            return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{info.size_bytes}"})
        start, end = wanted or (0, info.size_bytes)
        headers["Content-Length"] = str(end - start)
        status = 200
        if wanted is not None:
            status = 206
            headers["Content-Range"] = content_range(start, end, info.size_bytes)
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers, media_type=file.content_type)
        return StreamingResponse(
            rooms.read(file.key, start, end), status_code=status, headers=headers, media_type=file.content_type
        )


def _add_media(router: APIRouter, rooms: Rooms, for_app: Any, for_media: Any, max_bytes: int) -> None:
    @router.put("/media/{name}", status_code=201, tags=["media"], responses={413: {"model": m.Problem}})
    async def upload_media(request: Request, app: Id, name: Id, access: Access = for_media) -> m.MediaFile:
        """Stores a media file (the body) to be played into rooms.

        With a token that is for one room only the file gets a name of its own, which the answer tells.
        """
        chunks: AsyncIterator[bytes] = request.stream()
        stored, info, content_type = await rooms.upload(
            app, name, chunks, max_bytes=max_bytes, can_replace=access.token.api
        )
        return m.MediaFile(
            name=stored, size_bytes=info.size_bytes, modified_at_ms=info.modified_at_ms, content_type=content_type
        )

    @router.get("/media", tags=["media"])
    async def list_media(app: Id, access: Access = for_app) -> m.MediaList:
        """The app's media files."""
        return m.MediaList(
            media=[
                m.MediaFile(
                    name=info.key.rsplit("/", 1)[-1], size_bytes=info.size_bytes, modified_at_ms=info.modified_at_ms
                )
                for info in await rooms.list_media(app)
            ]
        )

    @router.delete("/media/{name}", status_code=204, tags=["media"])
    async def delete_media(app: Id, name: Id, access: Access = for_app) -> Response:
        """Deletes a media file."""
        await rooms.delete_media(app, name)
        return Response(status_code=204)


def _add_vods(router: APIRouter, rooms: Rooms, for_room: Any) -> None:
    @router.post("/rooms/{room}/vods", status_code=201, tags=["vods"])
    async def start_vod(app: Id, room: RoomName, body: m.StartVod, access: Access = for_room) -> m.Vod:
        """Plays a media file into the room as a participant of its own."""
        vod = vod_pb2.Vod(
            app_id=app,
            room=room,
            media_key=body.media,
            identity=body.identity,
            name=body.name,
            tag=body.tag,
            is_loop=body.is_loop,
        )
        return m.Vod.of(await rooms.start_vod(vod))

    @router.get("/rooms/{room}/vods", tags=["vods"])
    async def list_vods(app: Id, room: RoomName, access: Access = for_room) -> m.VodList:
        """Vods of the room."""
        return m.VodList(vods=[m.Vod.of(vod) for vod in await rooms.vods(app, room)])

    @router.get("/rooms/{room}/vods/{vod}", tags=["vods"])
    async def get_vod(app: Id, room: RoomName, vod: Id, access: Access = for_room) -> m.Vod:
        """A vod with its position."""
        return m.Vod.of(await rooms.vod(app, room, vod))

    @router.post("/rooms/{room}/vods/{vod}/stop", status_code=202, tags=["vods"])
    async def stop_vod(app: Id, room: RoomName, vod: Id, access: Access = for_room) -> m.Vod:
        """Asks for its end."""
        return m.Vod.of(await rooms.stop_vod(app, room, vod))
