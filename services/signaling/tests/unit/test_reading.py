"""Everything that reads what strangers send."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mrtc.common.v1 import common_pb2 as common
from mrtc.signaling.v1 import client_pb2 as pb
from mrtc_common.errors import BadOfferError, BadRequestError, LimitExceededError, MrtcError, TooLargeError
from mrtc_signaling.core import ids, limits, sdp
from mrtc_signaling.core.media_sniff import sniff_media_type
from mrtc_signaling.entrypoints.frames import JsonCodec, ProtoCodec, choose
from mrtc_signaling.entrypoints.ranges import content_range, parse_range
from mrtc_signaling.testing import offer

VECTORS = Path(__file__).parents[4] / "tests/vectors/sdp"
SDP_TEXT = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "v=0",
                "m=audio 9 X 0",
                "m=video 0 X 0",
                "a=sendonly",
                "a=bundle-only",
                "a=mid:x",
                "a=rid:q send",
                "a=ice-ufrag:abcd",
                "m=",
            ]
        ),
        st.text(max_size=40),
    ),
    max_size=30,
).map("\r\n".join)


def refusal(read: Callable[[Any], object], value: object) -> str:
    """What a reader says against a value; empty if it takes it. Any other exception fails the test."""
    try:
        read(value)
    except (BadOfferError, BadRequestError) as error:
        return error.message
    return ""


def test_media_lines() -> None:
    """Kind, mid, direction, rids, rejected lines; a session-level direction holds where no other is."""
    text = (
        "v=0\r\na=sendonly\r\nm=audio 9 UDP 96\r\nm=video 9 UDP 96\r\na=mid:v\r\na=recvonly\r\n"
        "m=application 9 UDP 1\r\nm=video 0 UDP 96\r\na=rid:q send\r\na=rid:h recv\r\n"
    )
    lines = sdp.media_lines(text)
    assert [(m.kind, m.mid, m.sends, m.receives) for m in lines] == [
        ("audio", "0", True, False),
        ("video", "v", False, True),
        ("video", "3", False, False),
    ]
    assert lines[2].rids == ["q"]


@given(SDP_TEXT)
def test_any_text_is_lines_or_a_clear_error(text: str) -> None:
    """Nothing else ever comes out of the readers."""
    for read in (sdp.media_lines, sdp.parse_fragment, sdp.ice_credentials, sdp.restart_fragment):
        assert len(refusal(read, text)) < 300


def test_a_bundled_line_without_a_port_is_in_use() -> None:
    """Port 0 rejects a line, but not with bundle-only: so GStreamer offers its second line (RFC 9143 section 6)."""
    text = "m=video 9 X 0\r\na=mid:v\r\nm=audio 0 X 0\r\na=bundle-only\r\na=mid:a\r\nm=audio 0 X 0\r\na=mid:b\r\n"
    assert [(line.mid, line.sends) for line in sdp.media_lines(text)] == [("v", True), ("a", True), ("b", False)]


def test_fragments() -> None:
    """Candidates, credentials, an end; nothing is an error."""
    assert sdp.parse_fragment("a=ice-ufrag:abcd\r\na=ice-pwd:" + "p" * 22 + "\r\n").ufrag == "abcd"
    assert sdp.parse_fragment("m=audio 9 RTP/AVP 0\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host").candidates == 1
    assert sdp.parse_fragment("a=end-of-candidates").candidates == 0
    for bad in ("", "hello", "a=mid:0", "a=ice-ufrag:a b\r\na=candidate:x", "a=ice-ufrag:" + "x" * 300):
        with pytest.raises(BadOfferError):
            sdp.parse_fragment(bad)


def test_offers_of_browsers_are_known() -> None:
    """Others do not follow a call (docs/performance.md)."""
    offers = {one.stem: one.read_text() for one in VECTORS.glob("*.sdp")}
    known = {name for name, text in offers.items() if sdp.follows_calls(text)}
    assert known == {name for name in offers if name.startswith(("chromium_", "firefox_"))}
    assert {name.split("_")[0] for name in known} == {"chromium", "firefox"}
    assert sdp.follows_calls(offers["chromium_whep"].replace("\n", "\r\n"))
    assert not sdp.follows_calls("v=0\r\no=mozilla 1 1 IN IP4 0.0.0.0\r\n")


def test_ice_restart_keeps_all_but_the_credentials() -> None:
    """The offer again with new credentials and without old candidates; the answer as a fragment."""
    old = offer(["audio send", "video send"]) + "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\na=end-of-candidates\r\n"
    fresh = sdp.with_ice_credentials(old, "newu", "new1pwd")
    assert sdp.ice_credentials(fresh) == ("newu", "new1pwd")
    assert "candidate" not in fresh
    assert [m.mid for m in sdp.media_lines(fresh)] == ["0", "1"]
    fragment = sdp.restart_fragment("v=0\r\na=ice-lite\r\n" + fresh + "a=candidate:1 1 udp 1 192.0.2.9 9 typ host\r\n")
    assert sdp.parse_fragment(fragment).ufrag == "newu"
    assert "a=ice-lite" in fragment


def test_too_many_lines() -> None:
    """An offer of WHIP has a handful."""
    with pytest.raises(BadOfferError):
        sdp.media_lines("v=0\r\n" + "m=audio 9 X 0\r\n" * (sdp.MAX_LINES + 1))


def track(**fields: object) -> pb.NewTrack:
    values = {"kind": common.TRACK_KIND_VIDEO, "source": common.TRACK_SOURCE_CAMERA, "mid": "0"} | fields
    return pb.NewTrack(**values)


def publication(*tracks: pb.NewTrack, cid: str = "c", tag: str = "") -> pb.NewPublication:
    return pb.NewPublication(cid=cid, tag=tag, tracks=tracks)


@pytest.mark.parametrize(
    "publications",
    [
        [publication(track(), cid="")],
        [publication()],
        [publication(*[track(mid=str(i)) for i in range(9)])],
        [publication(track()), publication(track(mid="1"))],
        [publication(track()), publication(track(), cid="d")],
        [publication(track(mid=""))],
        [publication(track(mid="x" * 33))],
        [publication(track(kind=0))],
        [publication(track(kind=77))],
        [publication(track(source=99))],
        [publication(track(), track(mid="1", alternative_of="t"))],
        [publication(track(alternative_of="s"), track(mid="1", alternative_of="t"))],
        [publication(track(), tag="x" * 257)],
        [publication(track(), cid="é" * 33)],
        [publication(track(layers=[common.Layer(rid="q")] * 2))],
        [publication(track(layers=[common.Layer(rid="z")]))],
        [publication(track(layers=[common.Layer(rid=r) for r in ("q", "h", "f", "", "q")]))],
    ],
)
def test_malformed_publications(publications: list[pb.NewPublication]) -> None:
    """Each is refused."""
    with pytest.raises((BadRequestError, TooLargeError)):
        limits.check_publications(publications)


def test_join_message_and_wish_limits() -> None:
    """What is out of bounds is refused; what is within is not."""
    limits.check_join(pb.JoinRequest(token="t", offer="v=0", publications=[publication(track())]))
    for join, error in (
        (pb.JoinRequest(token="t" * 9000), TooLargeError),
        (pb.JoinRequest(name="n" * 257), TooLargeError),
        (pb.JoinRequest(metadata="m" * 5000), TooLargeError),
        (pb.JoinRequest(client_info="m" * 300), TooLargeError),
        (pb.JoinRequest(offer="o=1"), BadOfferError),
        (pb.JoinRequest(offer="v=0" + "x" * limits.MAX_OFFER_BYTES), TooLargeError),
        (pb.JoinRequest(publications=[publication(track())]), BadRequestError),
    ):
        with pytest.raises(error):
            limits.check_join(join)
    limits.check_message(pb.SendMessageRequest(payload=b"x" * limits.MAX_MESSAGE_BYTES))
    for message, error in (
        (pb.SendMessageRequest(payload=b"x" * (limits.MAX_MESSAGE_BYTES + 1)), TooLargeError),
        (pb.SendMessageRequest(topic="é" * 33), TooLargeError),
        (pb.SendMessageRequest(to=["a"] * 101), LimitExceededError),
    ):
        with pytest.raises(error):
            limits.check_message(message)
    for wishes, present, error in (
        ([pb.TrackWish()], 0, BadRequestError),
        ([pb.TrackWish(track_id="t", priority=256)], 0, BadRequestError),
        ([pb.TrackWish(track_id="t")] * 2049, 0, LimitExceededError),
        ([pb.TrackWish(track_id="t")], 4096, LimitExceededError),
    ):
        with pytest.raises(error):
            limits.check_wishes(wishes, present)


def test_subprotocols() -> None:
    """Ours, none, or others."""
    assert choose(["x", "mrtc.v1.json", "mrtc.v1.proto"])[0] == "mrtc.v1.proto"
    assert choose(["mrtc.v1.json"])[0] == "mrtc.v1.json"
    assert choose([])[0] is None
    assert choose(["mrtc.v2.proto"]) is None


def test_json_frames_skip_unknown_fields() -> None:
    """A newer client is understood."""
    frame = JsonCodec().decode('{"requestId": 5, "ack": "7", "mute": {"trackId": "t", "isMuted": true, "new": 1}}')
    assert (frame.request_id, frame.ack, frame.mute.track_id, frame.mute.is_muted) == (5, 7, "t", True)


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_garbage_frames(message: str | bytes) -> None:
    """A frame or a BadRequestError that does not repeat what was sent."""
    for codec in (ProtoCodec(), JsonCodec()):
        assert len(refusal(codec.decode, message)) < 100


@pytest.mark.parametrize(
    "text", ["{" * 5000, "[" * 100_000, '{"join":' * 3000, "null", "5", '"x"', '{"ack": -1}', '{"requestId": "x"}']
)
def test_deep_and_wrong_json(text: str) -> None:
    """Depth ends in an error and not in a crash."""
    with pytest.raises(BadRequestError):
        JsonCodec().decode(text)


@pytest.mark.parametrize(
    ("header", "size", "wanted"),
    [
        ("bytes=0-3", 10, (0, 4)),
        ("bytes=4-", 10, (4, 10)),
        ("bytes=-3", 10, (7, 10)),
        ("bytes=-30", 10, (0, 10)),
        ("bytes=0-99", 10, (0, 10)),
        ("bytes=10-", 10, None),
        ("bytes=5-4", 10, None),
        ("bytes=-0", 10, None),
        ("bytes=-", 10, None),
        ("bytes=0-1,3-4", 10, None),
        ("items=0-1", 10, None),
        ("", 10, None),
        ("bytes=0-", 0, None),
    ],
)
def test_ranges(header: str, size: int, wanted: tuple[int, int] | None) -> None:
    """One range, clipped to the file."""
    assert parse_range(header, size) == wanted


def test_content_range() -> None:
    """The last byte is included."""
    assert content_range(0, 4, 10) == "bytes 0-3/10"


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x00\x00\x00\x20ftypisom", "video/mp4"),
        (b"\x00\x00\x00\x14ftypqt  ", "video/quicktime"),
        (b"\x1a\x45\xdf\xa3\x01\x00\x00\x00\x42\x82\x84webm", "video/webm"),
        (b"\x1a\x45\xdf\xa3\x01\x00\x00\x00\x42\x82\x88matroska", "video/x-matroska"),
        (b"OggS\x00", "audio/ogg"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio/wav"),
        (b"fLaC\x00", "audio/flac"),
        (b"FLV\x01\x05", "video/x-flv"),
        ((b"\x47" + b"\x00" * 187) * 3, "video/mp2t"),
        (b"ID3\x04", "audio/mpeg"),
        (b"\xff\xfb\x90\x64", "audio/mpeg"),
        (b"\xff\xf1\x50\x80", "audio/aac"),
        (b"<html>", None),
        (b"", None),
        (b"\xff\xff\xff\xff", None),
        (b"#!/bin/sh\n", None),
        (b"MZ\x90\x00", None),
    ],
)
def test_media_by_content(head: bytes, kind: str | None) -> None:
    """The first bytes decide."""
    assert sniff_media_type(head) == kind


@given(st.binary(max_size=600))
def test_sniffing_never_fails(head: bytes) -> None:
    """Any bytes."""
    sniff_media_type(head)


def test_ids_follow_from_what_the_client_chose() -> None:
    """The same on every instance; different for different parts; safe as keys."""
    assert ids.publication_id("s", "c") == ids.publication_id("s", "c")
    assert len({ids.publication_id("s", "c"), ids.publication_id("s", "d"), ids.publication_id("sc", "")}) == 3
    assert len({ids.track_id("s", "c", 0), ids.track_id("s", "c", 1), ids.track_id("s", "c0", 1)}) == 3


@given(st.text(max_size=200))
def test_resume_tokens(text: str) -> None:
    """Only the very token fits its hash; any text is read without failing."""
    token = ids.new_resume_token("se_x")
    assert ids.session_of_resume_token(token) == "se_x"
    assert ids.is_resume_token(token, ids.hash_resume_token(token))
    assert not ids.is_resume_token(text, ids.hash_resume_token(token))
    ids.session_of_resume_token(text)


def test_errors_of_limits_are_ours() -> None:
    """Whatever is refused has a stable code."""
    with pytest.raises(MrtcError) as caught:
        limits.check_bytes("field", "x" * 10, 5)
    assert caught.value.code_name() == "too_large"
