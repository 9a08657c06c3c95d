"""What is published, or ended, while the transport is being replaced is on the new one, or not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
from mrtc.common.v1 import common_pb2 as common
from mrtc.signaling.v1 import client_pb2 as pb
from mrtc_sdk.room import Room
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

SOUND = common.Publication(id="pb_me", tracks=[common.Track(id="tr_me", kind=common.TRACK_KIND_AUDIO)])


async def test_a_replacement_waits_for_a_publish() -> None:
    """The server says that the media node is gone before it answers: the new transport has what was published."""
    async with serving() as (url, server):
        room = await Room.connect(url, "token", "r")
        server.is_dying = True
        await room.publish(AudioStreamTrack())
        replacement = await asyncio.wait_for(server.replacement, 10)
        assert set(replacement.track_mids) == {"tr_me"}
        await room.aclose()


async def test_an_unpublish_waits_for_a_replacement() -> None:
    """Else the new transport went on sending what has ended. The end of the room does not wait for the former one."""
    async with serving() as (url, server):
        room = await Room.connect(url, "token", "r")
        await room.publish(AudioStreamTrack())
        await server.say_media_is_lost()
        await asyncio.wait_for(server.replacement, 10)
        await room.unpublish("pb_me")
        line = room.transport.free_line("audio")
        assert line is not None
        assert line.mid == "0"
        await asyncio.wait_for(room.aclose(), 10)


class Server:
    """Answers one client; if it is dying, it says so before the answer to a publish. A new transport takes its time."""

    def __init__(self) -> None:
        self.is_dying = False
        self.replacement: asyncio.Future[pb.NegotiateRequest] = asyncio.get_running_loop().create_future()
        self._socket: ServerConnection | None = None
        self._peers: list[RTCPeerConnection] = []

    async def handle(self, socket: ServerConnection) -> None:
        self._socket = socket
        with contextlib.suppress(ConnectionClosed):
            async for data in socket:
                request = pb.ClientFrame.FromString(data if isinstance(data, bytes) else data.encode())
                reply = await self._reply(request)
                reply.request_id = request.request_id
                await socket.send(reply.SerializeToString())
        for peer in self._peers:
            await peer.close()

    async def say_media_is_lost(self) -> None:
        assert self._socket is not None
        await self._socket.send(pb.ServerFrame(push_seq=1, media_lost=pb.MediaLost()).SerializeToString())

    async def _reply(self, request: pb.ClientFrame) -> pb.ServerFrame:
        match request.WhichOneof("body"):
            case "join":
                answer = await self._answer(request.join.offer)
                return pb.ServerFrame(join=pb.JoinResponse(answer=answer, resume_token="t", resume_grace_ms=1000))
            case "negotiate":
                self.replacement.set_result(request.negotiate)
                await asyncio.sleep(0.3)  # whoever does not wait for the new transport goes on meanwhile
                return pb.ServerFrame(
                    negotiate=pb.NegotiateResponse(answer=await self._answer(request.negotiate.offer))
                )
            case "publish":
                if self.is_dying:
                    await self.say_media_is_lost()
                    await asyncio.sleep(0.3)  # whoever does not wait for the answer begins meanwhile
                return pb.ServerFrame(publish=pb.PublishResponse(publications=[SOUND]))
            case _:
                return pb.ServerFrame(done=pb.Done())

    async def _answer(self, offer: str) -> str:
        peer = RTCPeerConnection()
        self._peers.append(peer)
        await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        return peer.localDescription.sdp


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[str, Server]]:
    server = Server()
    async with serve(server.handle, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{next(iter(listening.sockets)).getsockname()[1]}", server
