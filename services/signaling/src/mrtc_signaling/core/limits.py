"""Limits on all that a client can make grow, and the checks of what it sends."""

from __future__ import annotations

from collections.abc import Iterable

from mrtc.common.v1 import common_pb2
from mrtc.signaling.v1 import client_pb2
from mrtc_common.errors import BadOfferError, BadRequestError, LimitExceededError, TooLargeError

MAX_FRAME_BYTES = 1024 * 1024  # an offer with several hundred slots has 200 to 500 KiB
MAX_OFFER_BYTES = 512 * 1024
MAX_MESSAGE_BYTES = 64 * 1024
MAX_TOPIC_BYTES = 64
MAX_METADATA_BYTES = 4 * 1024
MAX_NAME_BYTES = 256
MAX_TAG_BYTES = 256
MAX_CLIENT_INFO_BYTES = 256
MAX_CID_BYTES = 64
MAX_MID_BYTES = 32
MAX_TOKEN_BYTES = 8 * 1024
MAX_ADDRESSEES = 100
MAX_TRACKS_PER_PUBLICATION = 8
MAX_LAYERS = 4
# Wishes of one participant: rooms of a thousand with two tracks each.
MAX_WISHES = 2048
MAX_PRIORITY = 255
_RIDS = frozenset({"", "q", "h", "f"})


def check_bytes(field: str, value: str | bytes, limit: int) -> None:
    """Raises TooLargeError if a field is longer than allowed."""
    size = len(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else len(value)
    if size > limit:
        raise TooLargeError(f"{field} has {size} bytes, {limit} are allowed")


def check_offer(offer: str) -> None:
    """Cheap checks before an offer is handed to a node."""
    if len(offer) > MAX_OFFER_BYTES:
        raise TooLargeError(f"the offer has {len(offer)} bytes, {MAX_OFFER_BYTES} are allowed")
    if not offer.startswith("v=0"):
        raise BadOfferError("the offer is not SDP: it must begin with `v=0`")


def check_join(request: client_pb2.JoinRequest) -> None:
    """Raises if a field of a join is out of bounds."""
    check_bytes("token", request.token, MAX_TOKEN_BYTES)
    check_bytes("name", request.name, MAX_NAME_BYTES)
    check_bytes("metadata", request.metadata, MAX_METADATA_BYTES)
    check_bytes("client_info", request.client_info, MAX_CLIENT_INFO_BYTES)
    if request.offer:
        check_offer(request.offer)
    elif request.publications:
        raise BadRequestError("publications need an offer whose m-lines carry them")
    check_publications(request.publications)


def check_publications(publications: Iterable[client_pb2.NewPublication]) -> None:
    """Raises if what shall be published is malformed."""
    cids: set[str] = set()
    mids: set[str] = set()
    for publication in publications:
        check_bytes("cid", publication.cid, MAX_CID_BYTES)
        check_bytes("tag", publication.tag, MAX_TAG_BYTES)
        if not publication.cid or publication.cid in cids:
            raise BadRequestError("each publication needs a cid of its own")
        cids.add(publication.cid)
        if not 1 <= len(publication.tracks) <= MAX_TRACKS_PER_PUBLICATION:
            raise BadRequestError(f"a publication has 1 to {MAX_TRACKS_PER_PUBLICATION} tracks")
        if len({bool(track.alternative_of) for track in publication.tracks}) > 1:
            raise BadRequestError("a publication holds either new tracks or alternatives, not both")
        if len({track.alternative_of for track in publication.tracks}) > 1:
            raise BadRequestError("alternatives of one request must be of one track")
        for track in publication.tracks:
            _check_track(track)
            if track.mid in mids:
                raise BadRequestError(f"m-line {track.mid!r} carries two tracks")
            mids.add(track.mid)


def _check_track(track: client_pb2.NewTrack) -> None:
    check_bytes("mid", track.mid, MAX_MID_BYTES)
    if not track.mid:
        raise BadRequestError("a track needs the mid of its m-line")
    if track.kind not in (common_pb2.TRACK_KIND_AUDIO, common_pb2.TRACK_KIND_VIDEO):
        raise BadRequestError("a track needs a kind")
    if track.source not in common_pb2.TrackSource.values():
        raise BadRequestError("unknown track source")
    if len(track.layers) > MAX_LAYERS:
        raise BadRequestError(f"a track has at most {MAX_LAYERS} layers")
    rids = [layer.rid for layer in track.layers]
    if len(set(rids)) != len(rids) or not set(rids) <= _RIDS:
        raise BadRequestError("layers need distinct rids out of q, h, f")


def check_message(request: client_pb2.SendMessageRequest) -> None:
    """Raises if a text message is out of bounds."""
    check_bytes("payload", request.payload, MAX_MESSAGE_BYTES)
    check_bytes("topic", request.topic, MAX_TOPIC_BYTES)
    if len(request.to) > MAX_ADDRESSEES:
        raise LimitExceededError(f"a message has at most {MAX_ADDRESSEES} addressees")


def check_wishes(wishes: Iterable[client_pb2.TrackWish], present: int) -> None:
    """Raises if wishes are malformed or, with those that exist, too many."""
    wishes = list(wishes)
    if present + len(wishes) > 2 * MAX_WISHES or len(wishes) > MAX_WISHES:
        raise LimitExceededError(f"at most {MAX_WISHES} wishes")
    for wish in wishes:
        if not wish.track_id or len(wish.track_id) > 64:
            raise BadRequestError("a wish needs the id of its track")
        if wish.priority > MAX_PRIORITY:
            raise BadRequestError(f"a priority is 0 to {MAX_PRIORITY}")
