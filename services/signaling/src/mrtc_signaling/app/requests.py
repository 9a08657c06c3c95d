"""Carries out the requests of a client that is in a room, each once, in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mrtc.event.v1 import state_pb2
from mrtc.signaling.v1 import client_pb2
from mrtc_common.errors import (
    BadRequestError,
    FailedPreconditionError,
    InternalError,
    MrtcError,
    PermissionDeniedError,
    SessionNotFoundError,
    TransportNotFoundError,
)
from mrtc_common.ids import new_id
from mrtc_common.log import get_logger

from mrtc_signaling.core import limits
from mrtc_signaling.core.pushes import error_body

from .context import Context
from .session import Session
from .sessions import Sessions

_log = get_logger(__name__)

Frame = client_pb2.ServerFrame
_DONE = client_pb2.Done()


class Requests:
    """Answers requests."""

    def __init__(self, ctx: Context, sessions: Sessions) -> None:
        self._ctx = ctx
        self._sessions = sessions
        self._handlers: dict[str, Callable[[Session, client_pb2.ClientFrame], Awaitable[Frame]]] = {
            "negotiate": self._negotiate,
            "publish": self._publish,
            "unpublish": self._unpublish,
            "mute": self._mute,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "send_message": self._send_message,
            "leave": self._leave,
            "update_participant": self._update_participant,
        }

    async def handle(self, session: Session, frame: client_pb2.ClientFrame) -> Frame:
        """The reply to a request; the remembered one if it was answered before. Never raises MrtcError."""
        kind = frame.WhichOneof("body") or ""
        async with session.request_lock:
            known = session.replies.get(frame.request_id)
            if known is not None:
                return _with_slots(known, session)
            try:
                reply = await self._dispatch(session, kind, frame)
                code = "ok"
            except MrtcError as error:
                reply, code = Frame(error=error_body(error)), error.code_name()
            except Exception:
                request = new_id("rq")
                _log.exception("a request failed", request=request, kind=kind)
                fault = InternalError(f"internal error; the log has it under {request}")
                reply, code = Frame(error=error_body(fault)), fault.code_name()
            self._ctx.metrics.requests.labels(kind or "unknown", code).inc()
            session.replies.put(frame.request_id, reply)
            return _with_slots(reply, session)

    async def _dispatch(self, session: Session, kind: str, frame: client_pb2.ClientFrame) -> Frame:
        if session.is_ended:
            raise SessionNotFoundError
        if kind in ("join", "resume"):
            raise FailedPreconditionError("this connection is in a room already")
        handler = self._handlers.get(kind)
        if handler is None:
            raise BadRequestError("the frame holds no request that this server knows")
        return await handler(session, frame)

    async def _negotiate(self, session: Session, frame: client_pb2.ClientFrame) -> Frame:
        request = frame.negotiate
        limits.check_offer(request.offer)
        if request.new_transport or not session.leg.transport_id:
            answer = await self._new_transport(session, request)
        else:
            answer = await self._renegotiate(session, request.offer)
        self._sessions.save_soon(session)
        return Frame(negotiate=client_pb2.NegotiateResponse(answer=answer))

    async def _renegotiate(self, session: Session, offer: str) -> str:
        leg = session.leg
        try:
            async with leg.lock:
                answer = await leg.negotiate(offer)
        except TransportNotFoundError:
            session.media_lost("transport_not_found")
            raise
        session.subscriber.renegotiated()
        await session.subscriber.apply()
        return answer

    async def _new_transport(self, session: Session, request: client_pb2.NegotiateRequest) -> str:
        """The client's media goes on over another transport; what it publishes and receives stays what it is."""
        leg = session.leg
        async with leg.lock:
            is_move = request.is_move and leg.is_open
            former = (leg.node_id, leg.transport_id)
            if leg.is_open and not is_move:
                await leg.close()
            nodes, first = session.hub.view.media_nodes(), session.mover.take_target()
            answer = await leg.open(request.offer, nodes, session.caps, away=is_move, first=first)
            session.media_is_back()
            session.subscriber.lost()
            session.subscriber.renegotiated()
            await session.publisher.move_to_new_transport(dict(request.track_mids))
        if is_move:
            # Others are told when the new transport flows; until then they receive what comes on the former.
            session.mover.leave(*former)
        else:
            await session.show_media()
        if is_move or not former[1]:
            await session.subscriber.apply()
        else:
            # The client connects meanwhile. What others send may be missing for a while: they lost their node too.
            session.subscriber.mark_dirty(force=True)
        return answer

    async def _publish(self, session: Session, frame: client_pb2.ClientFrame) -> Frame:
        records = await session.publisher.publish(list(frame.publish.publications))
        await session.publisher.write(records)
        return Frame(publish=client_pb2.PublishResponse(publications=[r.publication for r in records]))

    async def _unpublish(self, session: Session, frame: client_pb2.ClientFrame) -> Frame:
        await session.publisher.unpublish(frame.unpublish.publication_id)
        return Frame(done=_DONE)

    async def _mute(self, session: Session, frame: client_pb2.ClientFrame) -> Frame:
        await session.publisher.mute(frame.mute.track_id, frame.mute.is_muted)
        return Frame(done=_DONE)

    async def _subscribe(self, session: Session, frame: client_pb2.ClientFrame) -> Frame:
        if not session.record.grants.can_subscribe:
            raise PermissionDeniedError("the token does not permit to subscribe")
        await session.subscriber.subscribe(list(frame.subscribe.wishes))
        self._sessions.save_soon(session)
        return Frame(subscribe=client_pb2.SubscribeResponse())

    async def _unsubscribe(self, session: Session, frame: client_pb2.ClientFrame) -> Frame:
        if len(frame.unsubscribe.track_ids) > limits.MAX_WISHES:
            raise BadRequestError(f"at most {limits.MAX_WISHES} tracks at once")
        await session.subscriber.unsubscribe(list(frame.unsubscribe.track_ids))
        self._sessions.save_soon(session)
        return Frame(done=_DONE)

    async def _send_message(self, session: Session, frame: client_pb2.ClientFrame) -> Frame:
        if not session.record.grants.can_send_messages:
            raise PermissionDeniedError("the token does not permit to send messages")
        limits.check_message(frame.send_message)
        message = state_pb2.RoomMessage(
            participant_id=session.participant_id,
            identity=session.identity,
            topic=frame.send_message.topic,
            payload=frame.send_message.payload,
            sent_at_ms=self._ctx.clock.unix_ms(),
            to=frame.send_message.to,
        )
        # The id holds over instances: a request that is repeated after a resume elsewhere is stored once.
        seq = await self._ctx.messages.publish(session.room_key, message, f"{session.id}:{frame.request_id}")
        self._ctx.metrics.messages.inc()
        return Frame(send_message=client_pb2.SendMessageResponse(message_seq=seq))

    async def _leave(self, session: Session, _frame: client_pb2.ClientFrame) -> Frame:
        return Frame(done=_DONE)  # the entry point ends the session once the reply is on its way

    async def _update_participant(self, session: Session, frame: client_pb2.ClientFrame) -> Frame:
        request = frame.update_participant
        participant = session.participant.participant
        if request.HasField("name"):
            limits.check_bytes("name", request.name, limits.MAX_NAME_BYTES)
        if request.HasField("metadata"):
            limits.check_bytes("metadata", request.metadata, limits.MAX_METADATA_BYTES)
        if request.HasField("name"):
            participant.name = request.name
        if request.HasField("metadata"):
            participant.metadata = request.metadata
        await self._ctx.rooms.put_participant(session.room_key, session.participant)
        return Frame(done=_DONE)


def _with_slots(reply: Frame, session: Session) -> Frame:
    """A reply with the slots of now: of a remembered one they may have changed, which nobody would tell again."""
    body = reply.WhichOneof("body")
    if body in ("negotiate", "subscribe"):
        slots = getattr(reply, body).slots
        del slots[:]
        slots.extend(session.subscriber.slots.mappings())
    return reply
