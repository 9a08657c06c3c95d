"""What the server says right behind its reply to a join is not lost: pushes build on the snapshot of that reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from mrtc.common.v1 import common_pb2 as common
from mrtc.signaling.v1 import client_pb2 as pb
from mrtc_sdk.errors import RequestFailed
from mrtc_sdk.room import Room
from websockets.asyncio.server import ServerConnection, serve

BOB = common.Participant(id="pa_bob", identity="bob")
PICTURE = common.Publication(
    id="pb_bob", participant_id="pa_bob", tracks=[common.Track(id="tr_bob", kind=common.TRACK_KIND_VIDEO)]
)

Replies = Callable[[pb.ClientFrame, str, str], Iterable[pb.ServerFrame]]


async def test_pushes_behind_the_reply_to_a_join_count() -> None:
    """Somebody who comes in the same moment is known, his track is mapped, and his message is given once."""

    def replies(request: pb.ClientFrame, answer: str, mid: str) -> Iterable[pb.ServerFrame]:
        me = common.Participant(id="pa_me", identity="me")
        snapshot = pb.RoomSnapshot(room="r", participants=[me], last_message_seq=3)
        join = pb.JoinResponse(participant=me, snapshot=snapshot, answer=answer, resume_token="t", resume_grace_ms=1000)
        yield pb.ServerFrame(request_id=request.request_id, join=join)
        pushes = [
            pb.ServerFrame(participant_joined=pb.ParticipantJoined(participant=BOB)),
            pb.ServerFrame(publication_updated=pb.PublicationUpdated(publication=PICTURE)),
            pb.ServerFrame(slots_changed=pb.SlotsChanged(slots=[pb.SlotMapping(mid=mid, track_id="tr_bob")])),
            pb.ServerFrame(message_received=pb.MessageReceived(message_seq=4, payload=b"hello")),
        ]
        for number, push in enumerate(pushes, 1):
            push.push_seq = number
            yield push

    async with server(replies) as (url, _):
        room = await Room.connect(url, "token", "r")
        told = []
        while "message" not in told:
            told.append((await room.next_event())[0])
        await room.wait_for(lambda r: "tr_bob" in r.tracks)
        assert set(room.participants) == {"pa_me", "pa_bob"}
        assert set(room.publications) == {"pb_bob"}
        assert room._active_signal.last_message_seq == 4
        assert sorted(told) == sorted({*told})
        await room.aclose()


async def test_an_answer_that_cannot_be_taken_ends_the_join() -> None:
    """Its connection does not stay open: a client that is connected is a participant."""

    def replies(request: pb.ClientFrame, answer: str, mid: str) -> Iterable[pb.ServerFrame]:
        join = pb.JoinResponse(answer=answer[: answer.rindex("m=")], resume_token="t")
        yield pb.ServerFrame(request_id=request.request_id, join=join)

    async with server(replies) as (url, has_ended):
        with pytest.raises(ValueError, match="do not match"):
            await Room.connect(url, "token", "r")
        await asyncio.wait_for(has_ended.wait(), 5)


async def test_a_refused_join_ends() -> None:
    """The code is the server's."""

    def replies(request: pb.ClientFrame, answer: str, mid: str) -> Iterable[pb.ServerFrame]:
        yield pb.ServerFrame(request_id=request.request_id, error=pb.Error(message="no"))

    async with server(replies) as (url, _):
        with pytest.raises(RequestFailed):
            await Room.connect(url, "token", "r")


@asynccontextmanager
async def server(replies: Replies) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A server that answers the first frame of a connection by these, sent without a pause; tells of its end."""
    has_ended = asyncio.Event()

    async def handle(socket: ServerConnection) -> None:
        request = pb.ClientFrame.FromString(await socket.recv(decode=False))
        peer = RTCPeerConnection()
        await peer.setRemoteDescription(RTCSessionDescription(request.join.offer, "offer"))
        for transceiver in peer.getTransceivers():
            transceiver.direction = "sendonly"
        await peer.setLocalDescription(await peer.createAnswer())
        mid = [str(t.mid) for t in peer.getTransceivers() if t.kind == "video"][-1]  # the lines to send come first
        for frame in replies(request, peer.localDescription.sdp, mid):
            await socket.send(frame.SerializeToString())
        await socket.wait_closed()
        has_ended.set()
        await peer.close()

    async with serve(handle, "127.0.0.1", 0) as serving:
        yield f"http://127.0.0.1:{next(iter(serving.sockets)).getsockname()[1]}", has_ended
