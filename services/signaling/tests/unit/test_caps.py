"""Which of the caps that are set holds for a participant."""

from __future__ import annotations

import pytest
from mrtc.event.v1 import state_pb2
from mrtc_signaling.core.caps import Caps, effective
from mrtc_signaling.ports import AppLimits


@pytest.mark.parametrize(
    ("deployment", "app", "own", "holds"),
    [
        (0, 0, 0, 0),
        (5, 0, 0, 5),
        (5, 9, 0, 9),
        (5, 2, 0, 2),
        (5, 9, 7, 7),
        (5, 0, 7, 5),
        (0, 9, 12, 9),
        (0, 0, 12, 12),
        (0, 2**40, 0, 2**32 - 1),
    ],
)
def test_the_app_replaces_the_deployment_and_the_participant_can_only_lower(
    deployment: int, app: int, own: int, holds: int
) -> None:
    """The same for each of the three caps, and none of them for another."""
    for name in ("egress", "ingress", "track"):
        wanted = state_pb2.MediaCaps(**{f"max_{name}_bps": own})
        found = effective(Caps(**{f"{name}_bps": deployment}), Caps(**{f"{name}_bps": app}), wanted)
        assert found == Caps(**{f"{name}_bps": holds})


def test_an_apps_limits_hold_its_caps() -> None:
    """As the command line sets them."""
    limits = AppLimits(max_egress_bps_per_participant=1, max_ingress_bps_per_participant=2, max_track_bps=3)
    assert limits.caps == Caps(1, 2, 3)
