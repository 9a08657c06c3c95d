"""Frames of data channels are written and read as docs/protocol.md says; what the server would refuse is not sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mrtc_sdk.data import DataReceived, check, frame, parse


def test_a_frame_names_its_addressees() -> None:
    """Flags, names with their lengths, payload."""
    assert frame("hi", ["bob", "é"]) == b"\x01\x02\x03bob\x02\xc3\xa9hi"
    assert frame(b"\x00", ()) == b"\x00\x00\x00"


def test_what_the_server_sends_is_read() -> None:
    """Sender, kind of payload, and whether something is missing before it."""
    assert parse(b"\x01\x01\x03bobhi", "t", True) == DataReceived("t", "bob", "hi", is_reliable=True)
    assert parse(b"\x02\x01\x03bob\xff", "t", False) == DataReceived("t", "bob", b"\xff", False, has_gap=True)


@given(st.binary(max_size=64))
def test_no_bytes_do_harm(message: bytes) -> None:
    """What is not a frame is passed over."""
    parse(message, "t", True)


def test_what_is_out_of_bounds_is_refused() -> None:
    """Topic, payload and names have limits."""
    check("t" * 64, "x" * 64_000, is_reliable=True)
    for topic, payload, is_reliable in (
        ("", "x", True),
        ("t" * 65, "x", True),
        ("no spaces", "x", True),
        ("t", "é" * 32_001, True),
        ("t", b"x" * 15_001, False),
    ):
        with pytest.raises(ValueError, match="has"):
            check(topic, payload, is_reliable)
    for to in ([""], ["x" * 129], ["x"] * 101):
        with pytest.raises(ValueError, match="has"):
            frame("x", to)
