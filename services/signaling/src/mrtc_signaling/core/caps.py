"""What a participant may receive and send at most: which of the caps that are set holds."""

from __future__ import annotations

from dataclasses import dataclass

from mrtc.event.v1 import state_pb2

_MAX_BPS = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Caps:
    """In bit/s; 0: no cap.

    Args:
        egress_bps: what a participant is sent, all subscriptions together.
        ingress_bps: what it sends, all tracks together.
        track_bps: what each of its tracks sends, all layers together.
    """

    egress_bps: int = 0
    ingress_bps: int = 0
    track_bps: int = 0


def effective(deployment: Caps, app: Caps, own: state_pb2.MediaCaps) -> Caps:
    """What holds: the app's caps take the place of the deployment's, and a participant's own can only be smaller."""
    return Caps(
        _smaller(app.egress_bps or deployment.egress_bps, own.max_egress_bps),
        _smaller(app.ingress_bps or deployment.ingress_bps, own.max_ingress_bps),
        _smaller(app.track_bps or deployment.track_bps, own.max_track_bps),
    )


def _smaller(left: int, right: int) -> int:
    return min((min(bps, _MAX_BPS) for bps in (left, right) if bps), default=0)
