"""WHIP publishers and WHEP players: sessions without a connection, alive while their transport is."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc.media.v1 import media_service_pb2
from mrtc.signaling.v1 import client_pb2
from mrtc_common import subjects
from mrtc_common.errors import (
    BadOfferError,
    FailedPreconditionError,
    MrtcError,
    PermissionDeniedError,
    SessionNotFoundError,
)
from mrtc_common.ids import track_of_media

from mrtc_signaling.core import sdp
from mrtc_signaling.core.limits import MAX_TRACKS_PER_PUBLICATION
from mrtc_signaling.core.room_view import RoomView
from mrtc_signaling.core.subscriptions import SubscriptionPolicy, first_playable, wanted_subscriptions

from .access import Access
from .context import Context
from .join import Joiner, JoinPlan
from .session import Session
from .sessions import Sessions
from .takeover import take_over

# What a player is told to wait before it asks again for a room without media.
NO_MEDIA_RETRY_MS = 2000


class PreconditionFailedError(Exception):
    """The `If-Match` of a PATCH names another ICE generation than the present one (412)."""


class NotLiveError(FailedPreconditionError):
    """A player came to a room in which nobody sends anything."""

    default_message = "nobody sends media in this room at the moment"


@dataclass(slots=True)
class HttpSession:
    """A WHIP or WHEP session; what another instance would need to go on with it is in its record."""

    session: Session
    answer: str = ""

    @property
    def state(self) -> state_pb2.HttpSessionState:
        """Door, newest offer, present ICE generation."""
        return self.session.record.http


class HttpSessions:
    """All WHIP and WHEP sessions of this instance, by session id."""

    def __init__(self, ctx: Context, sessions: Sessions, joiner: Joiner) -> None:
        self._ctx, self._sessions, self._joiner = ctx, sessions, joiner
        self._by_id: dict[str, HttpSession] = {}

    async def publish(
        self, access: Access, room: str, identity: str, offer: str, *, needs_token: bool = True
    ) -> HttpSession:
        """A WHIP publisher joins. Raises MrtcError.

        Args:
            needs_token: False if the POST carried its token in the query: then the URL alone must do, it cannot be
                guessed.
        """
        if not access.token.grants.publish:
            raise PermissionDeniedError("the token does not permit to publish")
        sending = [line for line in sdp.media_lines(offer) if line.sends][:MAX_TRACKS_PER_PUBLICATION]
        if not sending:
            raise BadOfferError("the offer has no m-line on which the client sends")
        publication = client_pb2.NewPublication(cid="whip", tag="whip", tracks=[_new_track(line) for line in sending])
        plan = JoinPlan(
            access=access,
            room=access.room(room),
            identity=self._publisher_identity(access, identity),
            offer=offer,
            publications=[publication],
            kind=common_pb2.PARTICIPANT_KIND_INGRESS,
            manual_subscribe=True,
            is_headless=True,
            client_info="whip",
        )
        return await self._join(plan, state_pb2.HttpSessionState(door="whip", offer=offer, needs_token=needs_token))

    async def play(
        self, access: Access, room: str, identity: str, offer: str, *, needs_token: bool = True
    ) -> HttpSession:
        """A WHEP player joins and is sent one participant: `identity`, or the first of the room. Raises MrtcError."""
        if not access.token.grants.subscribe:
            raise PermissionDeniedError("the token does not permit to subscribe")
        if not any(line.receives for line in sdp.media_lines(offer)):
            raise BadOfferError("the offer has no m-line on which the client receives")
        room = access.room(room)
        await self._wait_for_media(subjects.room_key(access.app.id, room), identity)
        plan = JoinPlan(
            access=access,
            room=room,
            # Many players may share one token (a link for viewers), so each is an identity of its own.
            identity=f"{access.token.identity[:100] or 'viewer'}~{secrets.token_hex(4)}",
            offer=offer,
            kind=common_pb2.PARTICIPANT_KIND_INGRESS,
            is_headless=True,
            client_info="whep",
            wanted=_player_wants(identity),
        )
        state = state_pb2.HttpSessionState(door="whep", offer=offer, needs_token=needs_token, plays=identity)
        return await self._join(plan, state)

    async def adopt(self, record: state_pb2.SessionRecord, revision: int) -> None:
        """Goes on with a session whose instance is gone.

        Raises FencedError if another instance was quicker, SessionNotFoundError if its participant is gone, and
        UnavailableError.
        """
        wanted = _player_wants(record.http.plays) if record.http.door == "whep" else wanted_subscriptions

        async def claim(record: state_pb2.SessionRecord) -> int:
            return await self._ctx.sessions.update(record, revision)

        session = await take_over(self._ctx, self._sessions, record, claim, is_headless=True, wanted=wanted)
        self._by_id[session.id] = HttpSession(session)
        session.attach(None)
        if session.leg.is_open:
            session.subscriber.mark_dirty(force=True)
        else:
            self._sessions.end_soon(session, common_pb2.LEAVE_REASON_MEDIA_FAILURE)

    def has(self, session_id: str) -> bool:
        """True if it is served here."""
        found = self._by_id.get(session_id)
        return found is not None and not found.session.is_ended

    def get(self, door: str, session_id: str) -> HttpSession:
        """A session. Raises SessionNotFoundError."""
        found = self._by_id.get(session_id)
        if found is None or found.state.door != door or found.session.is_ended:
            self._by_id.pop(session_id, None)
            raise SessionNotFoundError("no such session, or it is over")
        return found

    async def patch(self, found: HttpSession, fragment: str, if_match: str) -> str | None:
        """Trickle ICE or an ICE restart; the answering fragment of a restart, None for trickle.

        The server is ICE-lite and answers on what reaches it: candidates of the client are of no use and only checked.
        Raises PreconditionFailedError, BadOfferError, MrtcError of the node.
        """
        parsed = sdp.parse_fragment(fragment)
        ufrag, _ = sdp.ice_credentials(found.state.offer)
        is_restart = bool(parsed.ufrag and parsed.pwd) and parsed.ufrag != ufrag
        if if_match not in ("*", found.state.etag):
            raise PreconditionFailedError
        if not is_restart:
            return None
        session = found.session
        offer = sdp.with_ice_credentials(found.state.offer, parsed.ufrag, parsed.pwd)
        async with session.request_lock:
            leg = session.mover.leg_to_restart()
            async with leg.lock:
                answer = await leg.negotiate(offer)
        found.state.offer, found.state.etag = offer, sdp.ice_etag(answer)
        self._sessions.save_soon(session)
        return sdp.restart_fragment(answer)

    async def end(self, found: HttpSession) -> None:
        """The client ends it."""
        self._by_id.pop(found.session.id, None)
        await self._sessions.end(found.session, common_pb2.LEAVE_REASON_CLIENT_REQUEST)

    async def _join(self, plan: JoinPlan, state: state_pb2.HttpSessionState) -> HttpSession:
        door, code = state.door, "ok"
        plan = replace(plan, http=state)
        try:
            with self._ctx.metrics.join_seconds.labels(door).time():
                joined = await self._joiner.join(plan, lambda _: None)
        except MrtcError as error:
            code = error.code_name()
            raise
        finally:
            self._ctx.metrics.joins.labels(door, code).inc()
        if len(self._by_id) > 2 * len(self._sessions) + 64:
            self._by_id = {i: s for i, s in self._by_id.items() if not s.session.is_ended}
        made = self._by_id[joined.session.id] = HttpSession(joined.session, joined.answer)
        return made

    async def _wait_for_media(self, room_key: str, identity: str) -> None:
        async with self._ctx.hubs.lease(room_key) as hub:
            is_live = await hub.wait_until(
                lambda view: first_playable(view, identity or None) is not None, self._ctx.options.whep_wait_s
            )
        if not is_live:
            raise NotLiveError(retry_after_ms=NO_MEDIA_RETRY_MS)

    def _publisher_identity(self, access: Access, identity: str) -> str:
        """The token's identity; tokens of the app's own servers may name another."""
        if not identity or identity == access.token.identity:
            if not access.token.identity:
                raise PermissionDeniedError("an API token must name the identity: POST /whip/{room}/{identity}")
            return access.token.identity
        if not access.token.api and not access.token.grants.admin:
            raise PermissionDeniedError("the token is for another identity")
        subjects.encode_name(identity)
        return identity


def _player_wants(
    identity: str,
) -> Callable[[RoomView, str, SubscriptionPolicy], list[media_service_pb2.Subscription]]:
    """One sound and one picture of the participant that is to be played, from as many publications as it takes."""

    def wanted(view: RoomView, own_id: str, policy: SubscriptionPolicy) -> list[media_service_pb2.Subscription]:
        record = first_playable(view, identity or None)
        if record is None:
            return []
        others = view.publications_of(record.publication.participant_id)
        playable = [track.id for owned in (record, *others) for track in owned.publication.tracks]
        by_track = {track_of_media(wish.track_id): wish for wish in wanted_subscriptions(view, own_id, policy)}
        first_of_kind: dict[int, media_service_pb2.Subscription] = {}
        for wish in (by_track[track_id] for track_id in playable if track_id in by_track):
            first_of_kind.setdefault(wish.kind, wish)
        return list(first_of_kind.values())

    return wanted


def _new_track(line: sdp.MediaLine) -> client_pb2.NewTrack:
    is_video = line.kind == "video"
    return client_pb2.NewTrack(
        kind=common_pb2.TRACK_KIND_VIDEO if is_video else common_pb2.TRACK_KIND_AUDIO,
        source=common_pb2.TRACK_SOURCE_FILE,
        mid=line.mid,
    )
