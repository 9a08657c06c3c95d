"""Layers inside one encoding (SVC), chosen by the page that publishes."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.caller import Caller, wait_until
from tests.support.api import RoomApi


def test_av1_with_temporal_layers_is_received(new_caller: Callable[[], Caller], room: str) -> None:
    """By the dependency descriptor, since AV1's payload does not tell its layers."""
    publisher, receiver = new_caller(), new_caller()
    publisher.join(room, "publisher", videoCodec="av1")
    publisher.publish(22, scalabilityMode="L1T3", width=320, height=180)
    receiver.join(room, "receiver")
    receiver.sees("publisher", 22, timeout_s=30)
    receiver.receives("av1", "publisher")


def sees_width(viewer: Caller, width: int) -> None:
    """Waits until the publisher's picture comes in this size."""
    wait_until(
        lambda: viewer.see("publisher").get("width") == width,
        lambda: f"{viewer.identity} sees {width} pixels; {viewer.see('publisher')}\n{viewer.report()}",
        30,
    )


def test_vp9_layers_go_to_whom_they_fit_and_are_not_sent_for_nobody(
    new_caller: Callable[[], Caller], room: str, api: RoomApi
) -> None:
    """By what a viewer shows and by what it may receive; the publisher encodes as many as somebody sees."""
    publisher, large, small = new_caller(), new_caller(), new_caller()
    publisher.join(room, "publisher", videoCodec="vp9")
    publisher.publish(23, scalabilityMode="L3T3_KEY", width=960, height=540, fps=8, texture=True)
    for viewer, name in ((large, "large"), (small, "small")):
        viewer.join(room, name)
        viewer.sees("publisher", 23, timeout_s=30)
        viewer.receives("vp9", "publisher")
    large.call("resize", "publisher", 960, 540)
    small.call("resize", "publisher", 160, 90)
    sees_width(small, 240)
    sees_width(large, 960)
    assert encoding_of(publisher) == ["L3T3_KEY", 1]

    api.call("POST", "participants/large/caps", json={"max_egress_bps": 100_000})
    sees_width(large, 240)
    wait_until(lambda: encoding_of(publisher) == ["L1T3", 4], "the publisher to encode one layer", 10)
    small.sees("publisher", 23)

    api.call("POST", "participants/large/caps", json={"max_egress_bps": 0})
    sees_width(large, 960)
    sees_width(small, 240)
    large.sees("publisher", 23)
    assert encoding_of(publisher) == ["L3T3_KEY", 1]


def encoding_of(publisher: Caller) -> list[object]:
    """In which mode its camera is encoded, and by what it is made smaller."""
    sender = "window.call.room.localParticipant.track('camera').line.transceiver.sender"
    mode_and_scale = "({ scalabilityMode, scaleResolutionDownBy = 1 }) => [scalabilityMode, scaleResolutionDownBy]"
    found: list[object] = publisher.page.evaluate(f"({mode_and_scale})({sender}.getParameters().encodings[0])")
    return found
