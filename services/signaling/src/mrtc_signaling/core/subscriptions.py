"""Decides which tracks a participant receives: the whole wanted list, from the room and the participant's wishes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc.media.v1 import media_service_pb2
from mrtc_common.ids import media_track_id

from .room_view import RoomView

DEFAULT_PRIORITY = 128


@dataclass(slots=True)
class SubscriptionPolicy:
    """What one participant wants to receive."""

    can_subscribe: bool = True
    # True: only tracks with a wish. False: every track but the declined ones.
    is_manual: bool = False
    # By track id.
    wishes: dict[str, state_pb2.SubscriptionWish] = field(default_factory=dict)
    # Tracks given up; a later wish takes them back.
    declined: set[str] = field(default_factory=set)

    def wish(self, wishes: Iterable[state_pb2.SubscriptionWish]) -> None:
        """Asks for tracks or changes what is wanted of them."""
        for wish in wishes:
            self.wishes[wish.track_id] = wish
            self.declined.discard(wish.track_id)

    def decline(self, track_ids: Iterable[str]) -> None:
        """Gives tracks up."""
        for track_id in track_ids:
            self.wishes.pop(track_id, None)
            self.declined.add(track_id)

    def wants(self, track_id: str) -> bool:
        """True if this track is wanted."""
        if not self.can_subscribe or track_id in self.declined:
            return False
        return not self.is_manual or track_id in self.wishes

    def forget_tracks_but(self, existing: set[str]) -> None:
        """Drops what is known of tracks that are gone, so that a long session does not grow."""
        self.wishes = {k: v for k, v in self.wishes.items() if k in existing}
        self.declined &= existing


def wanted_subscriptions(
    view: RoomView, participant_id: str, policy: SubscriptionPolicy
) -> list[media_service_pb2.Subscription]:
    """The whole list for SetSubscriptions: tracks of all others, in the order of their publication.

    Alternatives (the same picture in a further codec) are never entries of their own; they ride on their track.
    """
    wanted: list[media_service_pb2.Subscription] = []
    for record in view.publications.values():
        if record.publication.participant_id == participant_id or not record.node_id:
            continue
        for track in record.publication.tracks:
            if track.alternative_of or not policy.wants(track.id):
                continue
            wish = policy.wishes.get(track.id, state_pb2.SubscriptionWish())
            names = [track.id, *(other.id for other in record.publication.tracks if other.alternative_of == track.id)]
            first, *others = media_names(names, record.generation)
            wanted.append(
                media_service_pb2.Subscription(
                    track_id=first,
                    kind=track.kind,
                    origin_node_id=record.node_id,
                    max_height=wish.max_height,
                    max_fps=wish.max_fps,
                    is_paused=wish.is_paused,
                    priority=wish.priority or DEFAULT_PRIORITY,
                    alternative_track_ids=others,
                    former_track_ids=media_names(names, record.generation - 1) if record.generation else (),
                )
            )
    return wanted


def media_names(track_ids: Iterable[str], generation: int) -> list[str]:
    """What media nodes call these tracks."""
    return [media_track_id(track_id, generation) for track_id in track_ids]


def first_playable(view: RoomView, identity: str | None) -> state_pb2.PublicationRecord | None:
    """What a player (WHEP) that names no tracks is shown.

    The oldest publication of the room, one with a picture before one without; of `identity` only, if given.
    """
    candidates = [
        record
        for record in view.publications.values()
        if record.node_id
        and (owner := view.participants.get(record.publication.participant_id)) is not None
        and (identity is None or owner.participant.identity == identity)
    ]
    with_picture = [r for r in candidates if any(t.kind == common_pb2.TRACK_KIND_VIDEO for t in r.publication.tracks)]
    return next(iter(with_picture or candidates), None)
