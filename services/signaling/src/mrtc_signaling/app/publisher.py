"""What a session publishes: its publications, their tracks on the transport, and the records that others see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc.signaling.v1 import client_pb2
from mrtc_common.errors import (
    BadRequestError,
    LimitExceededError,
    PermissionDeniedError,
    PublicationNotFoundError,
)
from mrtc_common.ids import media_track_id, track_of_media
from mrtc_common.log import get_logger

from mrtc_signaling.core import codecs, ids, limits
from mrtc_signaling.core.room_view import RoomView
from mrtc_signaling.core.subscriptions import media_names

from .context import Context
from .transport_leg import TransportLeg

_log = get_logger(__name__)


class Publisher:
    """The publications of one session."""

    def __init__(
        self,
        ctx: Context,
        view: RoomView,
        room_key: str,
        session_id: str,
        participant_id: str,
        leg: TransportLeg,
        push: Callable[[client_pb2.ServerFrame], None],
        *,
        can_publish: bool,
        max_publications: int,
    ) -> None:
        self.publications: dict[str, state_pb2.PublicationRecord] = {}
        self._ctx, self._view, self._room_key = ctx, view, room_key
        self._session_id, self._participant_id = session_id, participant_id
        self._leg, self._push = leg, push
        self._can_publish, self._max_publications = can_publish, max_publications
        # Tracks for which the client was asked for a codec, so that it is asked once.
        self._asked: dict[str, tuple[str, ...]] = {}

    async def publish(self, wanted: Sequence[client_pb2.NewPublication]) -> list[state_pb2.PublicationRecord]:
        """Makes publications; one that exists already (a repeated request) is returned as it is.

        The records are returned, not written: the caller does that, beside other writes. Raises MrtcError.
        """
        if wanted and not self._can_publish:
            raise PermissionDeniedError("the token does not permit to publish")
        limits.check_publications(wanted)
        planned: dict[str, state_pb2.PublicationRecord] = {}
        plans = [self._plan(new, planned) for new in wanted]
        if len(self.publications.keys() | {plan.publication.id for plan, _ in plans}) > self._max_publications > 0:
            raise LimitExceededError(f"a participant may have {self._max_publications} publications")
        if any(tracks for _, tracks in plans):
            await self._make_tracks(plans)
        for record, _ in plans:
            self.publications[record.publication.id] = record
        return [record for record, _ in plans]

    async def write(self, records: Sequence[state_pb2.PublicationRecord]) -> None:
        """Shows publications to the room."""
        await asyncio.gather(*(self._ctx.rooms.put_publication(self._room_key, record) for record in records))

    async def unpublish(self, publication_id: str) -> None:
        """Ends a publication. Raises PublicationNotFoundError."""
        record = self.publications.get(publication_id)
        if record is None:
            raise PublicationNotFoundError
        if self._leg.is_open:
            node = await self._leg.node()
            tracks = media_names((t.id for t in record.publication.tracks), record.generation)
            await node.unpublish_tracks(self._leg.transport_id, tracks)
        await self._ctx.rooms.delete_publication(self._room_key, record)
        self.publications.pop(publication_id, None)
        self._forget_asked(record)

    async def mute(self, track_id: str, is_muted: bool) -> None:
        """Mutes or unmutes a track and its alternatives. Raises PublicationNotFoundError."""
        record = self.record_of(track_id)
        changed = copy_record(record)
        affected = [t for t in changed.publication.tracks if track_id in (t.id, t.alternative_of)]
        if self._leg.is_open:
            node = await self._leg.node()
            for media_id in media_names((t.id for t in affected), record.generation):
                await node.mute_track(self._leg.transport_id, media_id, is_muted)
        for track in affected:
            track.is_muted = is_muted
        await self._store(changed)

    async def move_to_new_transport(self, track_mids: Mapping[str, str]) -> None:
        """Makes all tracks anew on a transport that replaced the old one; the records are the caller's to write.

        Tracks without a mid in `track_mids` end; a publication without tracks ends.
        """
        records: list[state_pb2.PublicationRecord] = []
        for record in list(self.publications.values()):
            moved = copy_record(record)
            moved.node_id = self._leg.node_id
            moved.generation += 1
            kept = [t for t in moved.publication.tracks if t.id in track_mids]
            for track in kept:
                track.mid = track_mids[track.id]
                self._leg.line(track.mid)
            del moved.publication.tracks[:]
            moved.publication.tracks.extend(kept)
            records.append(moved)
        tracks = [t for r in records for t in _as_media_knows_them(r.publication.tracks, r.generation)]
        if tracks:
            node = await self._leg.node()
            await node.publish_tracks(self._leg.transport_id, tracks)
            for track in tracks:
                if track.is_muted:
                    await node.mute_track(self._leg.transport_id, track.id, True)
        for record in records:
            if record.publication.tracks:
                self.publications[record.publication.id] = record
            else:
                await self._ctx.rooms.delete_publication(self._room_key, self.publications.pop(record.publication.id))

    async def track_started(self, track_id: str, codec: str) -> None:
        """Media of a track came: notes the codec that is really sent."""
        record = next(
            (r for r in self.publications.values() if any(t.id == track_id for t in r.publication.tracks)), None
        )
        if record is None or not codec:
            return
        changed = copy_record(record)
        track = next(t for t in changed.publication.tracks if t.id == track_id)
        if track.codec != codec:
            track.codec = codec
            await self._store(changed)

    def ask_for_codecs(self, track_id: str) -> None:
        """Somebody wants an own track in a further codec: asks the client, once."""
        wanted = codecs.unmet_want(self._view, track_id)
        record = next(
            (r for r in self.publications.values() if any(t.id == track_id for t in r.publication.tracks)), None
        )
        if not wanted or record is None or self._asked.get(track_id) == wanted:
            return
        self._asked[track_id] = wanted
        self._push(client_pb2.ServerFrame(codec_requested=client_pb2.CodecRequested(track_id=track_id, codecs=wanted)))

    def ask_again(self) -> None:
        """The client came back: asks anew for what is still wanted."""
        self._asked.clear()
        for record in self.publications.values():
            for track in record.publication.tracks:
                self.ask_for_codecs(track.id)

    def adopt(self, record: state_pb2.PublicationRecord) -> bool:
        """Takes an own record as the room shows it; True if somebody else changed it (an admin muted a track)."""
        own = self.publications.get(record.publication.id)
        if own is None or own == record:
            return False
        if record.generation < own.generation:
            # Written by somebody who does not know of the move under way: its mutes and caps hold, not its place.
            record = _with_orders_of(own, record)
        self.publications[record.publication.id] = record
        return own.publication != record.publication

    # Inside

    def _plan(
        self, new: client_pb2.NewPublication, planned: dict[str, state_pb2.PublicationRecord]
    ) -> tuple[state_pb2.PublicationRecord, list[common_pb2.Track]]:
        """The record that shall be, and which of its tracks are still to be made."""
        alternative_of = new.tracks[0].alternative_of
        if alternative_of:
            known = self.record_of(alternative_of)
            record = planned.get(known.publication.id) or copy_record(known)
        else:
            publication_id = ids.publication_id(self._session_id, new.cid)
            existing = self.publications.get(publication_id)
            record = (
                copy_record(existing)
                if existing
                else state_pb2.PublicationRecord(
                    publication=common_pb2.Publication(
                        id=publication_id, participant_id=self._participant_id, tag=new.tag
                    ),
                    published_at_ms=self._ctx.clock.unix_ms(),
                )
            )
        record.node_id = self._leg.node_id
        fresh: list[common_pb2.Track] = []
        present = {track.id for track in record.publication.tracks}
        for index, track in enumerate(new.tracks):
            track_id = ids.track_id(self._session_id, new.cid, index)
            if track_id not in present:
                record.publication.tracks.append(self._new_track(track_id, track))
                fresh.append(record.publication.tracks[-1])  # the stored message, which is completed later
        if len(record.publication.tracks) > limits.MAX_TRACKS_PER_PUBLICATION:
            raise LimitExceededError(f"a publication has at most {limits.MAX_TRACKS_PER_PUBLICATION} tracks")
        planned[record.publication.id] = record
        return record, fresh

    def _new_track(self, track_id: str, new: client_pb2.NewTrack) -> common_pb2.Track:
        line = self._leg.line(new.mid)
        if line.kind != new.kind:
            raise BadRequestError(f"m-line {new.mid!r} is of another kind than the track")
        if self._mid_in_use(new.mid):
            raise BadRequestError(f"m-line {new.mid!r} carries another track already")
        return common_pb2.Track(
            id=track_id,
            kind=new.kind,
            source=new.source,
            is_muted=new.is_muted,
            layers=new.layers,
            alternative_of=new.alternative_of,
            mid=new.mid,
            is_encrypted=new.is_encrypted,
            max_bitrate_bps=new.max_bitrate_bps,
        )

    async def _make_tracks(self, plans: Sequence[tuple[state_pb2.PublicationRecord, list[common_pb2.Track]]]) -> None:
        node = await self._leg.node()
        wanted = [t for record, tracks in plans for t in _as_media_knows_them(tracks, record.generation)]
        made = {track_of_media(t.id): t for t in await node.publish_tracks(self._leg.transport_id, wanted)}
        for record, tracks in plans:
            for track in tracks:
                if track.id in made:
                    track.codec = made[track.id].codec
                    if made[track.id].layers:
                        _merge_layers(track, made[track.id])
                record.offered_codecs[track.id].codecs.extend(self._leg.line(track.mid).codecs)
        for track in wanted:
            if track.is_muted:
                await node.mute_track(self._leg.transport_id, track.id, True)

    def _mid_in_use(self, mid: str) -> bool:
        return any(t.mid == mid for r in self.publications.values() for t in r.publication.tracks)

    def record_of(self, track_id: str) -> state_pb2.PublicationRecord:
        """The own publication that has a track. Raises PublicationNotFoundError."""
        for record in self.publications.values():
            if any(track.id == track_id for track in record.publication.tracks):
                return record
        raise PublicationNotFoundError(f"{track_id!r} is no track of this participant")

    def _forget_asked(self, record: state_pb2.PublicationRecord) -> None:
        for track in record.publication.tracks:
            self._asked.pop(track.id, None)

    async def _store(self, record: state_pb2.PublicationRecord) -> None:
        """Takes a changed record as own at once, so that its echo is known, and shows it."""
        self.publications[record.publication.id] = record
        await self._ctx.rooms.put_publication(self._room_key, record)


def copy_record(record: state_pb2.PublicationRecord) -> state_pb2.PublicationRecord:
    """A copy to change."""
    fresh = state_pb2.PublicationRecord()
    fresh.CopyFrom(record)
    return fresh


def _with_orders_of(
    own: state_pb2.PublicationRecord, other: state_pb2.PublicationRecord
) -> state_pb2.PublicationRecord:
    ordered = {track.id: track for track in other.publication.tracks}
    merged = copy_record(own)
    for track in merged.publication.tracks:
        if track.id in ordered:
            track.is_muted = ordered[track.id].is_muted
            track.max_bitrate_bps = ordered[track.id].max_bitrate_bps
    return merged


def _as_media_knows_them(tracks: Iterable[common_pb2.Track], generation: int) -> list[common_pb2.Track]:
    renamed: list[common_pb2.Track] = []
    for track in tracks:
        renamed.append(common_pb2.Track())
        renamed[-1].CopyFrom(track)
        renamed[-1].id = media_track_id(track.id, generation)
    return renamed


def _merge_layers(track: common_pb2.Track, made: common_pb2.Track) -> None:
    """The node knows which rids were negotiated; the client knows their sizes."""
    sizes = {layer.rid: layer for layer in track.layers}
    merged = [sizes.get(layer.rid, layer) for layer in made.layers]
    del track.layers[:]
    track.layers.extend(merged)
