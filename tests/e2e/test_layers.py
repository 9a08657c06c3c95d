"""Layers inside one encoding (SVC), chosen by the page that publishes."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.caller import Caller


def test_av1_with_temporal_layers_is_received(new_caller: Callable[[], Caller], room: str) -> None:
    """By the dependency descriptor, since AV1's payload does not tell its layers."""
    publisher, receiver = new_caller(), new_caller()
    publisher.join(room, "publisher", videoCodec="av1")
    publisher.publish(22, scalabilityMode="L1T3", width=320, height=180)
    receiver.join(room, "receiver")
    receiver.sees("publisher", 22, timeout_s=30)
    receiver.receives("av1", "publisher")
