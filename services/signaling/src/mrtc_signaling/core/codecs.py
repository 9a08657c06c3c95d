"""Decides about alternatives: the same picture in a further codec, for receivers that cannot decode the first."""

from __future__ import annotations

from collections.abc import Sequence

from mrtc.event.v1 import state_pb2

from .room_view import RoomView


def askable_codecs(record: state_pb2.PublicationRecord, track_id: str, receivable: Sequence[str]) -> tuple[str, ...]:
    """Codecs that the publisher of a track could add and the receiver can decode, best for the publisher first.

    Empty if there is none: then the track can never reach this receiver.
    """
    offered = record.offered_codecs.get(track_id)
    present = {t.codec for t in record.publication.tracks if t.id == track_id or t.alternative_of == track_id}
    return tuple(c for c in (offered.codecs if offered else ()) if c in receivable and c not in present)


def unmet_want(view: RoomView, track_id: str) -> tuple[str, ...]:
    """Codecs for which a track's publisher should be asked now: wanted and not there yet."""
    found = view.find_track(track_id)
    wanted = view.codec_wants.get(track_id, ())
    if found is None or not wanted:
        return ()
    record, _ = found
    present = {t.codec for t in record.publication.tracks if t.id == track_id or t.alternative_of == track_id}
    return () if present & set(wanted) else wanted
