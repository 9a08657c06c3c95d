"""Access tokens: JSON Web Tokens, HS256, signed with a key of the app. docs/auth.md tells app developers."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import jwt

from .errors import BadRequestError, TokenExpiredError, UnauthenticatedError
from .subjects import MAX_NAME_BYTES

ALGORITHM = "HS256"
LEEWAY_S = 5
MAX_TOKEN_BYTES = 16 * 1024
MAX_METADATA_BYTES = 4 * 1024
MIN_SECRET_BYTES = 32
MAX_CAP_BPS = 2**32 - 1


@dataclass(frozen=True, slots=True)
class TokenGrants:
    """What a token permits."""

    publish: bool = True
    subscribe: bool = True
    message: bool = True
    can_publish_data: bool = True
    admin: bool = False


@dataclass(frozen=True, slots=True)
class TokenCaps:
    """What its participant may receive and send at most, in bit/s; 0: no cap. An app's own caps hold beside it.

    Args:
        max_egress_bps: what it is sent, all subscriptions together.
        max_ingress_bps: what it sends, all tracks together.
        max_track_bps: what each of its tracks sends, all layers together.
    """

    max_egress_bps: int = 0
    max_ingress_bps: int = 0
    max_track_bps: int = 0


@dataclass(frozen=True, slots=True)
class AccessToken:
    """The content of a token.

    Args:
        app_id: claim `iss`.
        key_id: header `kid`.
        identity: claim `sub`; empty for API tokens.
        room: the only room it is good for; empty: any room of the app.
        api: True: an API token, good for the app's whole REST API.
        hidden: the participant is not shown to others.
        expires_at: Unix seconds.
    """

    app_id: str
    key_id: str
    identity: str = ""
    room: str = ""
    name: str = ""
    metadata: str = ""
    grants: TokenGrants = field(default_factory=TokenGrants)
    caps: TokenCaps = field(default_factory=TokenCaps)
    api: bool = False
    hidden: bool = False
    expires_at: int = 0


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """Who claims to have signed a token: what is needed to look the key up, not to be trusted for anything else."""

    app_id: str
    key_id: str


def mint_token(token: AccessToken, secret: str, *, ttl_s: int = 3600, now: float | None = None) -> str:
    """Signs a token that is valid from now for `ttl_s` seconds (or until `expires_at` if that is set)."""
    issued_at = int(time.time() if now is None else now)
    claims: dict[str, Any] = {
        "iss": token.app_id,
        "sub": token.identity,
        "iat": issued_at,
        "nbf": issued_at,
        "exp": token.expires_at or issued_at + ttl_s,
        "grants": asdict(token.grants),
    }
    optional = {
        "room": token.room,
        "name": token.name,
        "metadata": token.metadata,
        "api": token.api,
        "hidden": token.hidden,
        "caps": {name: bps for name, bps in asdict(token.caps).items() if bps},
    }
    claims |= {key: value for key, value in optional.items() if value}
    return jwt.encode(claims, secret, algorithm=ALGORITHM, headers={"kid": token.key_id})


def peek_token(text: str) -> UnverifiedToken:
    """Reads `iss` and `kid` without verifying anything. Raises UnauthenticatedError."""
    if len(text) > MAX_TOKEN_BYTES:
        raise UnauthenticatedError("the token is too long")
    try:
        decoded = jwt.decode_complete(text, options={"verify_signature": False})
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        raise UnauthenticatedError("not an access token") from None
    header, claims = decoded["header"], decoded["payload"]
    if header.get("alg") != ALGORITHM:
        raise UnauthenticatedError(f"the token must be signed with {ALGORITHM}")
    app_id, key_id = claims.get("iss"), header.get("kid")
    if not isinstance(app_id, str) or not isinstance(key_id, str) or not app_id or not key_id:
        raise UnauthenticatedError("the token lacks `iss` or `kid`")
    return UnverifiedToken(app_id=app_id, key_id=key_id)


def verify_token(text: str, secret: str) -> AccessToken:
    """Verifies signature, times and form. Raises UnauthenticatedError, TokenExpiredError, BadRequestError."""
    peeked = peek_token(text)
    try:
        claims = jwt.decode(
            text,
            secret,
            algorithms=[ALGORITHM],
            leeway=LEEWAY_S,
            options={"require": ["exp", "iss"], "verify_aud": False},
        )
    except jwt.ExpiredSignatureError:
        raise TokenExpiredError from None
    except jwt.ImmatureSignatureError:
        raise UnauthenticatedError("the token is not valid yet; are the clocks in step?") from None
    except (jwt.InvalidTokenError, ValueError):
        raise UnauthenticatedError("the token does not verify") from None
    return _token_from_claims(claims, peeked.key_id)


def _token_from_claims(claims: Mapping[str, Any], key_id: str) -> AccessToken:
    grants = claims.get("grants", {})
    if not isinstance(grants, dict):
        raise BadRequestError("claim `grants` must be an object")
    known = {name: grants.get(name, getattr(TokenGrants(), name)) for name in TokenGrants.__dataclass_fields__}
    if any(not isinstance(value, bool) for value in known.values()):
        raise BadRequestError("every grant must be true or false")
    api, hidden = claims.get("api", False), claims.get("hidden", False)
    if not isinstance(api, bool) or not isinstance(hidden, bool):
        raise BadRequestError("claims `api` and `hidden` must be true or false")
    token = AccessToken(
        app_id=_text(claims, "iss", MAX_NAME_BYTES),
        key_id=key_id,
        identity=_text(claims, "sub", MAX_NAME_BYTES),
        room=_text(claims, "room", MAX_NAME_BYTES),
        name=_text(claims, "name", 256),
        metadata=_text(claims, "metadata", MAX_METADATA_BYTES),
        grants=TokenGrants(**known),
        caps=_caps(claims.get("caps", {})),
        api=api,
        hidden=hidden,
        expires_at=int(claims["exp"]),
    )
    if not token.identity and not token.api:
        raise BadRequestError("the token lacks `sub`, the participant's identity")
    return token


def _caps(claim: object) -> TokenCaps:
    if not isinstance(claim, dict) or not claim.keys() <= TokenCaps.__dataclass_fields__.keys():
        known = ", ".join(TokenCaps.__dataclass_fields__)
        raise BadRequestError(f"claim `caps` must be an object of {known}")
    for bps in claim.values():
        if not isinstance(bps, int) or isinstance(bps, bool) or not 0 <= bps <= MAX_CAP_BPS:
            raise BadRequestError(f"a cap is a whole number of bit/s from 0 to {MAX_CAP_BPS}")
    return TokenCaps(**claim)


def _text(claims: Mapping[str, Any], name: str, max_bytes: int) -> str:
    value = claims.get(name, "")
    if not isinstance(value, str):
        raise BadRequestError(f"claim `{name}` must be text")
    if len(value.encode("utf-8", "surrogatepass")) > max_bytes:
        raise BadRequestError(f"claim `{name}` has more than {max_bytes} bytes")
    return value


def new_secret() -> str:
    """A fresh secret for an app key, a cluster or a resume token: 256 random bits as text."""
    return secrets.token_urlsafe(MIN_SECRET_BYTES)


def derive_key(secret: str, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose, of a random secret that has several."""
    return hmac.digest(secret.encode(), purpose.encode(), "sha256")


def hash_secret(secret: str) -> bytes:
    """SHA-256 of a random secret, to store in its place. Not for passwords of people."""
    return hashlib.sha256(secret.encode()).digest()


def same_secret(given: str | bytes, expected: str | bytes) -> bool:
    """Compares in constant time."""
    left = given.encode("utf-8", "surrogatepass") if isinstance(given, str) else given
    right = expected.encode("utf-8", "surrogatepass") if isinstance(expected, str) else expected
    return hmac.compare_digest(left, right)
