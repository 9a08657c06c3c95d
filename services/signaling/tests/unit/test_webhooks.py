"""Webhooks: what may be stored, how requests are signed and spaced, and where they may go."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc.recorder.v1 import recording_pb2
from mrtc.vod.v1 import vod_pb2
from mrtc_common import subjects
from mrtc_common.errors import BadRequestError
from mrtc_signaling.adapters.webhook_sender_http import is_permitted
from mrtc_signaling.core.app_events import EVENT_TYPES, StoredWrite, events_of
from mrtc_signaling.core.webhooks import check_events, check_url, retry_delay_ms, secret_text, sign
from mrtc_signaling.entrypoints.event_json import render_event

ROOM = subjects.room_key("app", "räum")


@pytest.mark.parametrize(
    "url", ["https://example.org/hook?a=b", "http://10.0.0.1:8080/", "https://[2001:db8::1]/x", "HTTPS://example.org"]
)
def test_good_urls(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://example.org/",
        "file:///etc/passwd",
        "//example.org",
        "https://",
        "https://user:password@example.org/",
        "https://example.org/#part",
        "https://exa mple.org/",
        "https://example.org/a\r\nhost: other",
        "https://example.org:99999/",
        "https://exämple.org/",
        "https://[::1/",
        "https://example.org/" + "a" * 2048,
    ],
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(BadRequestError):
        check_url(url)


@given(st.text(max_size=200))
def test_any_text_is_a_url_or_a_clear_error(text: str) -> None:
    messages: list[str] = []
    for candidate in (text, f"https://{text}", f"https://example.org/{text}"):
        try:
            assert check_url(candidate) == candidate
        except BadRequestError as error:
            messages.append(error.message)
    assert all(messages)


def test_event_types_are_checked() -> None:
    assert check_events(["room.started", "participant.left", "room.started"]) == ("participant.left", "room.started")
    with pytest.raises(BadRequestError, match=r"no such event type: participant\.sneezed"):
        check_events(["participant.sneezed"])


def test_the_signature_is_the_standards() -> None:
    """Standard Webhooks 1.0, worked out by hand."""
    secret = secret_text(b"0123456789abcdef0123456789abcdef")
    headers = sign(secret, "ev_1", 1_700_000_000, '{"a":1}')
    digest = hmac.new(b"0123456789abcdef0123456789abcdef", b'ev_1.1700000000.{"a":1}', hashlib.sha256).digest()
    assert headers == {
        "webhook-id": "ev_1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


def test_retries_are_spaced_wider_and_wider() -> None:
    for attempts in range(1, 200):
        whole = min(300_000, 1000 * 2 ** (attempts - 1))
        assert 0.8 * whole <= retry_delay_ms(attempts) <= 1.2 * whole + 1


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::1",
        "ff02::1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    parsed = ipaddress.ip_address(address)
    assert not is_permitted(parsed, ())


def test_public_addresses_and_permitted_networks() -> None:
    assert is_permitted(ipaddress.ip_address("93.184.216.34"), ())
    assert is_permitted(ipaddress.ip_address("2606:2800:220:1::1"), ())
    assert is_permitted(ipaddress.ip_address("10.1.2.3"), (ipaddress.ip_network("10.1.0.0/16"),))
    assert not is_permitted(ipaddress.ip_address("10.2.2.3"), (ipaddress.ip_network("10.1.0.0/16"),))


def _write(record: Message, key: str, bucket: str = subjects.BUCKET_ROOMS, **fields: Any) -> StoredWrite:
    values: dict[str, Any] = {"is_deletion": False, "at_ms": 9_000} | fields
    return StoredWrite(bucket, key, record.SerializeToString(), **values)


def _person(reason: int = 0) -> state_pb2.ParticipantRecord:
    person = common_pb2.Participant(id="pa_1", identity="alice", joined_at_ms=1_000)
    return state_pb2.ParticipantRecord(participant=person, leave_reason=reason)  # type: ignore[arg-type]


def test_the_same_thing_is_the_same_event() -> None:
    """A record that is written again tells nothing new; its end tells the beginning too, in order."""
    key = subjects.participant_key(ROOM, "pa_1")
    first, again = (events_of(_write(_person(), key, at_ms=at)) for at in (1_001, 2_000))
    assert first == again
    assert [(event.type, event.at_ms) for event in first] == [("participant.joined", 1_000)]
    end = events_of(_write(_person(common_pb2.LEAVE_REASON_REMOVED), key, is_deletion=True))
    assert [(event.type, event.at_ms) for event in end] == [("participant.joined", 1_000), ("participant.left", 9_000)]
    assert end[0].id == first[0].id != end[1].id
    elsewhere = events_of(_write(_person(), subjects.participant_key(subjects.room_key("other", "räum"), "pa_1")))
    assert elsewhere[0].id != first[0].id


def test_a_room_of_the_same_name_is_another_room() -> None:
    key = subjects.room_record_key(ROOM)
    first, second = (events_of(_write(state_pb2.RoomRecord(created_at_ms=at), key))[0] for at in (1, 2))
    assert first.id != second.id


def test_what_apps_are_not_told() -> None:
    """Who holds an identity, a deletion without last words, and a key of another version."""
    identity = state_pb2.IdentityRecord(participant_id="pa_1")
    assert events_of(_write(identity, subjects.identity_key(ROOM, "alice"))) == []
    key = subjects.participant_key(ROOM, "pa_1")
    assert events_of(StoredWrite(subjects.BUCKET_ROOMS, key, b"", True, 1)) == []
    assert events_of(_write(identity, "a.b", "mrtc_others")) == []


def test_a_recordings_life() -> None:
    def told(state: int, began: int, ended: int = 0) -> list[str]:
        record = recording_pb2.Recording(
            id="rec_1",
            app_id="app",
            room="r",
            state=state,  # type: ignore[arg-type]
            started_at_ms=began,
            ended_at_ms=ended,
        )
        return [event.type for event in events_of(_write(record, "a.b.rec_1", subjects.BUCKET_RECORDINGS))]

    assert told(1, 0) == told(2, 0) == []
    assert told(2, 5) == told(3, 5) == ["recording.started"]
    assert told(4, 5, 9) == ["recording.started", "recording.ended"]
    assert told(5, 0, 9) == ["recording.failed"]


def test_every_event_can_be_shown() -> None:
    vod = vod_pb2.Vod(id="vod_1", app_id="app", room="r", started_at_ms=1, ended_at_ms=2)
    shown = []
    for write in (
        _write(state_pb2.RoomRecord(created_at_ms=1), subjects.room_record_key(ROOM), is_deletion=True),
        _write(_person(), subjects.participant_key(ROOM, "pa_1"), is_deletion=True),
        _write(
            state_pb2.PublicationRecord(published_at_ms=1), subjects.publication_key(ROOM, "pub_1"), is_deletion=True
        ),
        *(
            _write(
                recording_pb2.Recording(app_id="app", room="r", started_at_ms=1, state=state),
                "a.b.c",
                subjects.BUCKET_RECORDINGS,
            )
            for state in (recording_pb2.RECORDING_STATE_COMPLETE, recording_pb2.RECORDING_STATE_FAILED)
        ),
        *(
            _write(_with_state(vod, state), "a.b.c", subjects.BUCKET_VODS)
            for state in (vod_pb2.VOD_STATE_ENDED, vod_pb2.VOD_STATE_FAILED)
        ),
    ):
        shown += [render_event(event) for event in events_of(write)]
    assert {event.type for event in shown} == set(EVENT_TYPES)


def _with_state(vod: vod_pb2.Vod, state: vod_pb2.VodState.ValueType) -> vod_pb2.Vod:
    changed = vod_pb2.Vod()
    changed.CopyFrom(vod)
    changed.state = state
    return changed
