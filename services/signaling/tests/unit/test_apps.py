"""Apps, keys and the command line, on a real SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from mrtc_common.auth import verify_token
from mrtc_common.errors import AlreadyExistsError, NotFoundError, UnavailableError
from mrtc_signaling.adapters.app_registry_sql import SqlAppRegistry
from mrtc_signaling.adapters.secret_box import SecretBox, SecretBoxError
from mrtc_signaling.cli import run_cli
from mrtc_signaling.ports import AppLimits

KEY = "secrets-key-of-the-tests"


class Time:
    """A clock that is moved by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest_asyncio.fixture
async def apps(tmp_path: Path, clock: Time) -> AsyncIterator[SqlAppRegistry]:
    registry = SqlAppRegistry(f"sqlite+aiosqlite:///{tmp_path / 'sub' / 'apps.sqlite3'}", KEY, clock=clock)
    await registry.migrate()
    yield registry
    await registry.aclose()


async def test_apps_keys_and_revocation(apps: SqlAppRegistry, clock: Time, tmp_path: Path) -> None:
    """A key belongs to its app, is stored encrypted, and ends when it is revoked."""
    app = await apps.create_app("My app")
    key_id, secret = await apps.create_key(app.id)
    assert await apps.key_secret(app.id, key_id) == secret
    assert await apps.key_secret("other", key_id) is None
    assert await apps.any_key(app.id) == (key_id, secret)
    raw = (tmp_path / "sub" / "apps.sqlite3").read_bytes()
    assert secret.encode() not in raw
    await apps.revoke_key(key_id)
    assert await apps.key_secret(app.id, key_id) is None
    assert await apps.any_key(app.id) is None
    with pytest.raises(NotFoundError):
        await apps.revoke_key("none")
    with pytest.raises(NotFoundError):
        await apps.create_key("none")


async def test_ensure_is_idempotent_and_ids_are_unique(apps: SqlAppRegistry) -> None:
    """The demo app is the same at every start."""
    first = await apps.ensure_app("demo", "Demo")
    assert await apps.ensure_app("demo", "Demo") == first
    with pytest.raises(AlreadyExistsError):
        await apps.create_app("again", app_id="demo")
    await apps.migrate()
    assert [app.id for app in await apps.list_apps()] == ["demo"]


async def test_limits(apps: SqlAppRegistry) -> None:
    """Only what differs from the defaults is stored, so that a new default reaches old apps."""
    app = await apps.create_app("a", limits=AppLimits(max_rooms=5))
    assert app.limits == AppLimits(max_rooms=5)
    changed = await apps.set_limits(app.id, AppLimits(max_publications_per_participant=2))
    assert changed.limits == AppLimits(max_publications_per_participant=2)
    found = await apps.app(app.id)
    assert found is not None
    assert found.limits.max_rooms == AppLimits().max_rooms


async def test_a_database_that_goes_away_leaves_known_apps(apps: SqlAppRegistry, clock: Time, tmp_path: Path) -> None:
    """What was just known is known on; what was not is refused for now."""
    app = await apps.create_app("a")
    key_id, secret = await apps.create_key(app.id)
    assert await apps.key_secret(app.id, key_id) == secret
    await apps.aclose()
    with sqlite3.connect(tmp_path / "sub" / "apps.sqlite3") as connection:
        connection.execute("ALTER TABLE app_keys RENAME TO hidden")
    connection.close()
    clock.now += 60
    assert await apps.key_secret(app.id, key_id) == secret
    with pytest.raises(UnavailableError):
        await apps.key_secret(app.id, "other")


def test_secret_box() -> None:
    """Opens with its key and context only; every sealing is another."""
    box = SecretBox(KEY)
    sealed = box.seal("secret", "k1")
    assert box.open(sealed, "k1") == "secret"
    assert sealed != box.seal("secret", "k1")
    for opener, data, context in (
        (SecretBox("another key of that length"), sealed, "k1"),
        (box, sealed, "k2"),
        (box, sealed[:-1] + bytes([sealed[-1] ^ 1]), "k1"),
        (box, b"", "k1"),
        (box, b"\x02" + sealed[1:], "k1"),
    ):
        with pytest.raises(SecretBoxError):
            opener.open(data, context)


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Create, list, limit, mint, revoke; failures say why and end with 1."""
    url = ["--database-url", f"sqlite+aiosqlite:///{tmp_path / 'apps.sqlite3'}"]
    monkeypatch.delenv("MRTC_SECRETS_KEY", raising=False)
    monkeypatch.delenv("MRTC_SIGNALING_SECRETS_KEY", raising=False)
    assert run_cli([*url, "app", "list"]) == 2
    monkeypatch.setenv("MRTC_SECRETS_KEY", KEY)
    capsys.readouterr()
    assert run_cli([*url, "app", "create", "My app", "--id", "mine"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert run_cli([*url, "app", "limits", "mine", "--max-rooms", "7"]) == 0
    assert json.loads(capsys.readouterr().out)["limits"]["max_rooms"] == 7
    assert run_cli([*url, "token", "--app", "mine", "--room", "r", "--identity", "i", "--admin"]) == 0
    token = verify_token(capsys.readouterr().out.strip(), made["secret"])
    assert (token.app_id, token.room, token.identity, token.grants.admin) == ("mine", "r", "i", True)
    assert run_cli([*url, "app", "create-key", "mine"]) == 0
    assert run_cli([*url, "app", "revoke-key", made["key_id"]]) == 0
    assert run_cli([*url, "app", "create", "Twice", "--id", "mine"]) == 1
    assert run_cli([*url, "token", "--app", "none"]) == 1
    assert "not_found" in capsys.readouterr().err
