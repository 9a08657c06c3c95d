"""Encrypts secrets at rest: AES-256-GCM, the key derived from the setting `secrets_key`."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE_BYTES = 12
_VERSION = b"\x01"


class SecretBoxError(Exception):
    """The ciphertext is damaged or was made with another key."""


class SecretBox:
    """Seals and opens secrets.

    Args:
        key: text of at least 16 characters; any strength beyond is derived, none is added.
    """

    def __init__(self, key: str) -> None:
        derived = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"mrtc app keys").derive(key.encode())
        self._cipher = AESGCM(derived)

    def seal(self, secret: str, context: str) -> bytes:
        """Ciphertext that opens for the same `context` only, so that rows cannot be swapped."""
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, secret.encode(), context.encode())

    def open(self, sealed: bytes, context: str) -> str:
        """The secret. Raises SecretBoxError."""
        if sealed[:1] != _VERSION:
            raise SecretBoxError("unknown format")
        nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, body, context.encode()).decode()
        except (InvalidTag, ValueError):
            raise SecretBoxError("the secret was sealed with another `secrets_key`") from None
