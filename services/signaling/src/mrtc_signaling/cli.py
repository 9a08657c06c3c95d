"""`mrtc-signaling app …` and `mrtc-signaling token …`: administers apps and mints tokens beside the database."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields

from mrtc_common.auth import AccessToken, TokenGrants, mint_token
from mrtc_common.errors import MrtcError, NotFoundError

from .adapters.app_registry_sql import SqlAppRegistry
from .config import SignalingSettings
from .ports import App, AppLimits


def run_cli(argv: Sequence[str]) -> int:
    """Runs one command; prints JSON."""
    options = _parser().parse_args(list(argv))
    url, key = options.database_url, os.environ.get("MRTC_SIGNALING_SECRETS_KEY") or os.environ.get("MRTC_SECRETS_KEY")
    if not key or len(key) < 16:
        sys.stderr.write("MRTC_SECRETS_KEY must be set to the key that the service uses\n")
        return 2
    try:
        result = asyncio.run(_run(options, url, key))
    except MrtcError as error:
        sys.stderr.write(f"{error.code_name()}: {error.message}\n")
        return 1
    sys.stdout.write((result if isinstance(result, str) else json.dumps(result, indent=2)) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mrtc-signaling")
    default_url = (
        os.environ.get("MRTC_SIGNALING_DATABASE_URL")
        or os.environ.get("MRTC_DATABASE_URL")
        or SignalingSettings.model_fields["database_url"].default
    )
    parser.add_argument("--database-url", default=default_url)
    nouns = parser.add_subparsers(dest="noun", required=True)
    app = nouns.add_parser("app", help="administer apps").add_subparsers(dest="verb", required=True)
    create = app.add_parser("create", help="create an app and its first key")
    create.add_argument("name")
    create.add_argument("--id", default="", help="app id; made up if not given")
    app.add_parser("list", help="list apps")
    limits = app.add_parser("limits", help="change limits of an app; 0: none")
    limits.add_argument("app")
    for field in fields(AppLimits):
        limits.add_argument(f"--{field.name.replace('_', '-')}", type=int, default=None)
    key_create = app.add_parser("create-key", help="create a further key")
    key_create.add_argument("app")
    key_revoke = app.add_parser("revoke-key", help="revoke a key")
    key_revoke.add_argument("key")
    token = nouns.add_parser("token", help="mint an access token")
    token.add_argument("--app", required=True)
    token.add_argument("--room", default="")
    token.add_argument("--identity", default="")
    token.add_argument("--name", default="")
    token.add_argument("--admin", action="store_true", help="may administer the room")
    token.add_argument("--api", action="store_true", help="an API token of the app's own servers")
    token.add_argument("--hidden", action="store_true", help="is not shown to others")
    token.add_argument("--ttl", type=int, default=3600, metavar="SECONDS")
    return parser


async def _run(options: argparse.Namespace, url: str, key: str) -> object:
    apps = SqlAppRegistry(url, key)
    try:
        await apps.migrate()
        if options.noun == "token":
            return await _token(apps, options)
        return await _app_command(apps, options)
    finally:
        await apps.aclose()


async def _app_command(apps: SqlAppRegistry, options: argparse.Namespace) -> object:
    match options.verb:
        case "create":
            made = await apps.create_app(options.name, app_id=options.id)
            key_id, secret = await apps.create_key(made.id)
            return {"app_id": made.id, "key_id": key_id, "secret": secret}
        case "list":
            return [_shown(app) for app in await apps.list_apps()]
        case "limits":
            app = await apps.app(options.app)
            if app is None:
                raise NotFoundError(f"no app {options.app!r}")
            given = {f.name: v for f in fields(AppLimits) if (v := getattr(options, f.name)) is not None}
            return _shown(await apps.set_limits(app.id, AppLimits(**(asdict(app.limits) | given))))
        case "create-key":
            key_id, secret = await apps.create_key(options.app)
            return {"app_id": options.app, "key_id": key_id, "secret": secret}
        case _:
            await apps.revoke_key(options.key)
            return {"key_id": options.key, "is_revoked": True}


async def _token(apps: SqlAppRegistry, options: argparse.Namespace) -> str:
    found = await apps.any_key(options.app)
    if found is None:
        raise NotFoundError(f"no app {options.app!r} with a key")
    key_id, secret = found
    token = AccessToken(
        app_id=options.app,
        key_id=key_id,
        identity=options.identity,
        room=options.room,
        name=options.name,
        grants=TokenGrants(admin=options.admin),
        api=options.api,
        hidden=options.hidden,
    )
    return mint_token(token, secret, ttl_s=options.ttl)


def _shown(app: App) -> dict[str, object]:
    return {"app_id": app.id, "name": app.name, "limits": asdict(app.limits)}
