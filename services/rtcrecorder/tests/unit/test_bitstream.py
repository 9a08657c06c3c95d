"""What key frames say of themselves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mrtc_rtcrecorder.core.bitstream import picture_format, split_annexb

CODECS = ["h264", "vp8", "vp9", "av1"]


@pytest.mark.integration
@pytest.mark.parametrize("codec", CODECS)
def test_the_format_of_a_real_stream_stays_and_changes_with_its_size(codec: str, make_frames: Any) -> None:
    """Equal within a stream, different for another size."""
    small = {picture_format(codec, frame.data) for frame in make_frames(codec) if frame.is_keyframe}
    large = {picture_format(codec, f.data) for f in make_frames(codec, 1.0, size="640x360") if f.is_keyframe}
    assert len(small) == len(large) == 1
    assert b"" not in small | large
    assert small != large


def test_annexb_splits_at_start_codes_of_both_lengths() -> None:
    """Three and four bytes; zeros that trail a unit are none of it."""
    assert split_annexb(b"\0\0\0\1\x67ab\0\0\1\x68\0\0\0\1\x65c") == [b"\x67ab", b"\x68", b"\x65c"]


@given(st.sampled_from(CODECS), st.binary(max_size=200))
def test_foreign_bytes_are_never_an_error(codec: str, data: bytes) -> None:
    """A publisher can send anything."""
    assert isinstance(picture_format(codec, data), bytes)
