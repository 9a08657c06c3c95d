"""What the recorder and its mixing process say to each other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from mrtc_common.clock import steady_unix_us
from mrtc_rtcrecorder.core.frames import CLOCK_RATES, Frame
from mrtc_rtcrecorder.mix import wire


@given(
    st.integers(0, 65_535),
    st.sampled_from(sorted(CLOCK_RATES)),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**63),
    st.integers(-(2**62), 2**62),
    st.binary(max_size=100),
)
def test_frames_survive_the_pipe(
    track: int, codec: str, key: bool, gap: bool, rtp_time: int, captured_at_us: int, data: bytes
) -> None:
    """Bit for bit."""
    frame = Frame(codec, key, gap, rtp_time, captured_at_us, data)
    before_us = steady_unix_us()
    message = wire.encode_frame(track, frame)
    length, kind, at_us = wire.parse_header(message[: wire.HEADER_BYTES])
    assert before_us <= at_us <= steady_unix_us()
    assert kind is wire.MessageKind.FRAME
    assert length == len(message) - wire.HEADER_BYTES
    assert wire.parse_frame(message[wire.HEADER_BYTES :]) == (track, frame)
