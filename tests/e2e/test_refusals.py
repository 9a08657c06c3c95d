"""Joins that must fail do so with the SDK's typed error."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys

from tests.e2e.caller import Caller
from tests.support.suite import RunningSuite


def tampered(token: str) -> str:
    """The token with another room in it and the old signature."""
    header, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    claims["room"] = "somebody-elses"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"{header}.{forged}.{signature}"


def expired(suite: RunningSuite, room: str, identity: str) -> str:
    """A rightly signed token that ended an hour ago, made as an operator would make one."""
    command = ["token", "--app", "demo", "--ttl=-3600", "--room"]
    made = subprocess.run(
        [sys.executable, "-m", "mrtc_signaling", *command, room, "--identity", identity],
        env={**os.environ, **suite.process("signaling-1").env},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return made.stdout.strip()


def test_a_tampered_token(alice: Caller, room: str, suite: RunningSuite) -> None:
    """A changed token is no token."""
    error = alice.try_join(tampered(suite.token(room, "alice")))
    assert error is not None
    assert (error["name"], error["code"]) == ("AuthError", "UNAUTHENTICATED")


def test_no_token_at_all(alice: Caller) -> None:
    """Neither is text that looks like nothing."""
    error = alice.try_join("nonsense")
    assert error is not None
    assert (error["name"], error["code"]) == ("AuthError", "UNAUTHENTICATED")


def test_an_expired_token(alice: Caller, room: str, suite: RunningSuite) -> None:
    """A token that was good is told apart from one that never was."""
    error = alice.try_join(expired(suite, room, "alice"))
    assert error is not None
    assert (error["name"], error["code"]) == ("AuthError", "TOKEN_EXPIRED")


def test_another_room_than_the_tokens(alice: Caller, room: str, suite: RunningSuite) -> None:
    """A token opens its room only."""
    error = alice.try_join(suite.token(room, "alice"), room="another-room")
    assert error is not None
    assert (error["name"], error["code"]) == ("AuthError", "PERMISSION_DENIED")


def test_nobody_listens(alice: Caller, room: str, suite: RunningSuite) -> None:
    """An address without a server is a connection error, not a hang."""
    error = alice.try_join(suite.token(room, "alice"), url="http://127.0.0.1:9")
    assert error is not None
    assert (error["name"], error["code"]) == ("ConnectionError", "CONNECTION_FAILED")
