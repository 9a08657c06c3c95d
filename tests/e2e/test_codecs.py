"""Receivers with different codecs see the same publisher."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.caller import Caller


def test_a_vp8_only_and_an_h264_only_receiver_see_one_publisher(new_caller: Callable[[], Caller], room: str) -> None:
    """The publisher is asked for the second codec when the first receiver that needs it comes."""
    publisher, vp8, h264 = new_caller(), new_caller(), new_caller()
    publisher.join(room, "publisher")
    publisher.publish(7)
    vp8.join(room, "vp8", receiveVideoCodecs=["vp8"])
    vp8.sees("publisher", 7)
    h264.join(room, "h264", receiveVideoCodecs=["h264"])
    h264.sees("publisher", 7, timeout_s=30)
    vp8.sees("publisher", 7)
    for caller, codec in ((vp8, "vp8"), (h264, "h264")):
        caller.receives(codec, "publisher")


def test_a_publisher_of_h264_is_seen_by_all(new_caller: Callable[[], Caller], room: str) -> None:
    """The same the other way round."""
    publisher, vp8, h264 = new_caller(), new_caller(), new_caller()
    publisher.join(room, "publisher", videoCodec="h264")
    publisher.publish(8)
    h264.join(room, "h264", receiveVideoCodecs=["h264"])
    vp8.join(room, "vp8", receiveVideoCodecs=["vp8"])
    h264.sees("publisher", 8)
    vp8.sees("publisher", 8, timeout_s=30)
