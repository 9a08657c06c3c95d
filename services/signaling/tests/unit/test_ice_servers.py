"""STUN and TURN servers for clients."""

from __future__ import annotations

import pytest
from mrtc.signaling.v1 import client_pb2
from mrtc_signaling.config import SignalingSettings
from mrtc_signaling.core.ice_servers import IceServers, TurnSecret
from pydantic import ValidationError

STUN = client_pb2.IceServer(urls=["stun:stun.example.org"])
TURN = TurnSecret(urls=("turn:turn.example.org",), secret="north", ttl_s=3600)
SETTINGS = {"cluster_secret": "0123456789abcdef", "secrets_key": "0123456789abcdef"}


def test_credentials_are_those_of_the_turn_rest_scheme() -> None:
    """By openssl: `printf 1700003600:p1 | openssl dgst -sha1 -hmac north -binary | base64`."""
    fixed, made = IceServers((STUN,), TURN).of("p1", 1_700_000_000_999)
    assert fixed == STUN
    assert made.urls == ["turn:turn.example.org"]
    assert made.username == "1700003600:p1"
    assert made.credential == "4EEMVinF9VQKZF50YH25G6+f6lw="


def test_without_turn_only_the_fixed_ones_are_given() -> None:
    """No credential is made up."""
    assert IceServers((STUN,)).of("p1", 0) == [STUN]
    assert IceServers().of("p1", 0) == []


def test_the_secret_is_in_no_text() -> None:
    """Options are printed by debuggers and by assertion errors."""
    assert "north" not in repr(IceServers((), TURN))


@pytest.mark.parametrize(
    "wrong",
    [
        {"turn_urls": ["turn:a"]},
        {"turn_urls": ["stun:a"], "turn_secret": "north"},
        {"turn_urls": ["http://a"], "turn_secret": "north"},
        {"turn_urls": ["turn:a"], "turn_secret": "north", "turn_ttl_s": 1},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    """URLs without a secret would be of no use to anybody."""
    with pytest.raises(ValidationError):
        SignalingSettings(**SETTINGS, **wrong)
