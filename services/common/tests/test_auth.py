"""Access tokens: what verifies, what does not, and with which error."""

import time
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mrtc_common.auth import (
    LEEWAY_S,
    AccessToken,
    TokenCaps,
    TokenGrants,
    hash_secret,
    mint_token,
    new_secret,
    peek_token,
    same_secret,
    verify_token,
)
from mrtc_common.errors import BadRequestError, MrtcError, TokenExpiredError, UnauthenticatedError

SECRET = "s" * 43
TOKEN = AccessToken(app_id="app", key_id="key", identity="ann", room="room", name="Ann", metadata="{}")


def _forge(secret: str = SECRET, algorithm: str = "HS256", kid: str | None = "key", **claims: Any) -> str:
    values = {"iss": "app", "sub": "ann", "exp": time.time() + 3600} | claims
    values = {key: value for key, value in values.items() if value is not None}
    headers = {"kid": kid} if kid is not None else None
    return jwt.encode(values, secret, algorithm=algorithm, headers=headers)


def test_a_token_is_read_as_minted() -> None:
    token = AccessToken(
        app_id="app", key_id="key", identity="ann", grants=TokenGrants(publish=False, admin=True), hidden=True
    )
    read = verify_token(mint_token(token, SECRET), SECRET)
    assert (read.grants, read.hidden, read.identity, read.app_id, read.key_id) == (
        token.grants,
        True,
        "ann",
        "app",
        "key",
    )
    assert abs(read.expires_at - time.time() - 3600) < 5


def test_who_signed_is_read_without_trust() -> None:
    peeked = peek_token(mint_token(TOKEN, SECRET))
    assert (peeked.app_id, peeked.key_id) == ("app", "key")


def test_an_expired_token_is_told_apart() -> None:
    with pytest.raises(TokenExpiredError):
        verify_token(_forge(exp=time.time() - LEEWAY_S - 2), SECRET)
    verify_token(_forge(exp=time.time() - 1), SECRET)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "a.b.c",
        "." * 100,
        "x" * 20_000,
        _forge("another secret, also long enough for it"),
        _forge(algorithm="HS512", secret="s" * 64),
        _forge(kid=None),
        _forge(iss=None),
        _forge(exp=None),
        _forge(nbf=time.time() + 3000),
        jwt.encode(
            {"iss": "app", "sub": "ann", "exp": time.time() + 3600}, "", algorithm="none", headers={"kid": "key"}
        ),
    ],
)
def test_what_does_not_verify_is_refused(text: str) -> None:
    with pytest.raises(UnauthenticatedError):
        verify_token(text, SECRET)


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": None},
        {"grants": []},
        {"grants": {"publish": "yes"}},
        {"room": "r" * 129},
        {"metadata": "m" * 5000},
        {"api": "true"},
        {"hidden": 1},
        {"caps": []},
        {"caps": {"max_egress_bps": -1}},
        {"caps": {"max_egress_bps": True}},
        {"caps": {"max_egress_bps": 2**32}},
        {"caps": {"max_egres_bps": 1}},
    ],
)
def test_malformed_claims_are_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(MrtcError) as caught:
        verify_token(_forge(**claims), SECRET)
    assert isinstance(caught.value, BadRequestError | UnauthenticatedError)


def test_caps_are_carried() -> None:
    token = AccessToken(app_id="app", key_id="key", identity="ann", caps=TokenCaps(max_ingress_bps=900_000))
    assert verify_token(mint_token(token, SECRET), SECRET).caps == TokenCaps(0, 900_000, 0)
    assert verify_token(_forge(), SECRET).caps == TokenCaps()


def test_an_api_token_needs_no_identity() -> None:
    assert verify_token(_forge(sub=None, api=True), SECRET).api


@given(st.text(max_size=200))
def test_garbage_never_verifies_nor_breaks(text: str) -> None:
    with pytest.raises(UnauthenticatedError):
        verify_token(text, SECRET)


def test_secrets_are_compared_whatever_their_form() -> None:
    secret = new_secret()
    assert same_secret(secret, secret.encode())
    assert not same_secret("\u20ac", secret)
    assert hash_secret(secret) != hash_secret(new_secret())
