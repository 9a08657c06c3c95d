"""Apps and keys in SQL: SQLite embedded, PostgreSQL deployed. Lookups are cached for a few seconds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from mrtc_common.auth import new_secret
from mrtc_common.errors import AlreadyExistsError, NotFoundError, UnavailableError
from mrtc_common.ids import new_id
from mrtc_common.log import get_logger
from sqlalchemy import Connection, event, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from mrtc_signaling.ports import App, AppLimits

from .app_tables import VERSION_TABLE, AppKeyRow, AppRow
from .secret_box import SecretBox, SecretBoxError

_log = get_logger(__name__)
T = TypeVar("T")

# A revoked key works on for at most so long; a join costs no query meanwhile.
_CACHE_TTL_S = 5.0
# Unknown keys are remembered too, or a flood of wrong tokens would be a flood of queries.
_MAX_CACHED = 4096
_MIGRATIONS = Path(__file__).parent / "migrations"
# Of PostgreSQL's advisory locks; "mrtc".
_MIGRATION_LOCK = 0x6D727463


class SqlAppRegistry:
    """See `ports.AppRegistry`; and what the command line needs to administer it.

    Attributes:
        session, box: for the other tables of the same database.
    """

    def __init__(self, url: str, secrets_key: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self.box = SecretBox(secrets_key)
        self._clock = clock
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        self._engine: AsyncEngine = create_async_engine(url, pool_pre_ping=True)
        if parsed.get_backend_name() == "sqlite":
            event.listen(self._engine.sync_engine, "connect", _tune_sqlite)
        self.session = async_sessionmaker(self._engine, expire_on_commit=False)
        self._cache: dict[tuple[str, ...], tuple[float, Any]] = {}

    async def migrate(self) -> None:
        """Brings the tables to this version's form, or leaves those of a newer version. Raises UnavailableError."""
        logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of every start at info
        try:
            async with self._engine.begin() as connection:
                await connection.run_sync(_upgrade)
        except (SQLAlchemyError, OSError, CommandError) as error:
            raise UnavailableError(f"the database cannot be used: {type(error).__name__}") from error

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._engine.dispose()

    async def app(self, app_id: str) -> App | None:
        """See the port."""

        async def load(session: AsyncSession) -> App | None:
            row = await session.get(AppRow, app_id)
            return _app(row) if row is not None else None

        found: App | None = await self._cached(("app", app_id), load)
        return found

    async def key_secret(self, app_id: str, key_id: str) -> str | None:
        """See the port."""

        async def load(session: AsyncSession) -> str | None:
            row = await session.get(AppKeyRow, key_id)
            if row is None or row.app_id != app_id or row.revoked_at_ms is not None:
                return None
            try:
                return self.box.open(row.secret_encrypted, key_id)
            except SecretBoxError as error:
                _log.error("an app key cannot be opened", key_id=key_id, reason=str(error))
                return None

        found: str | None = await self._cached(("key", app_id, key_id), load)
        return found

    # Administration

    async def create_app(self, name: str, *, app_id: str = "", limits: AppLimits | None = None) -> App:
        """Creates an app. Raises AlreadyExistsError."""
        row = AppRow(
            id=app_id or new_id("app"),
            name=name,
            created_at_ms=_now_ms(),
            limits=_changed_limits(limits or AppLimits()),
        )
        try:
            async with self.session.begin() as session:
                session.add(row)
        except IntegrityError:
            raise AlreadyExistsError(f"there is an app {row.id!r} already") from None
        self._cache.clear()
        return _app(row)

    async def create_key(self, app_id: str) -> tuple[str, str]:
        """Creates a key; returns its id and its secret, which is not shown again. Raises NotFoundError."""
        key_id, secret = new_id("key"), new_secret()
        async with self.session.begin() as session:
            if await session.get(AppRow, app_id) is None:
                raise NotFoundError(f"no app {app_id!r}")
            session.add(
                AppKeyRow(
                    id=key_id,
                    app_id=app_id,
                    secret_encrypted=self.box.seal(secret, key_id),
                    created_at_ms=_now_ms(),
                )
            )
        self._cache.clear()
        return key_id, secret

    async def revoke_key(self, key_id: str) -> None:
        """Revokes a key. Raises NotFoundError."""
        async with self.session.begin() as session:
            if await session.get(AppKeyRow, key_id) is None:
                raise NotFoundError(f"no key {key_id!r}")
            await session.execute(update(AppKeyRow).where(AppKeyRow.id == key_id).values(revoked_at_ms=_now_ms()))
        self._cache.clear()

    async def set_limits(self, app_id: str, limits: AppLimits) -> App:
        """Changes an app's limits. Raises NotFoundError."""
        async with self.session.begin() as session:
            row = await session.get(AppRow, app_id)
            if row is None:
                raise NotFoundError(f"no app {app_id!r}")
            row.limits = _changed_limits(limits)
        self._cache.clear()
        return _app(row)

    async def list_apps(self) -> list[App]:
        """All apps."""
        async with self.session() as session:
            return [_app(row) for row in await session.scalars(select(AppRow).order_by(AppRow.id))]

    async def any_key(self, app_id: str) -> tuple[str, str] | None:
        """A key of an app that is not revoked, and its secret: for tools that run beside the database."""
        async with self.session() as session:
            query = (
                select(AppKeyRow)
                .where(AppKeyRow.app_id == app_id, AppKeyRow.revoked_at_ms.is_(None))
                .order_by(AppKeyRow.created_at_ms)
                .limit(1)
            )
            row = await session.scalar(query)
            return (row.id, self.box.open(row.secret_encrypted, row.id)) if row is not None else None

    async def ensure_app(self, app_id: str, name: str) -> tuple[str, str]:
        """An app with this id and one of its keys, made if missing. Several processes may do this at once."""
        with contextlib.suppress(AlreadyExistsError):
            await self.create_app(name, app_id=app_id)
        return await self.any_key(app_id) or await self.create_key(app_id)

    # Inside

    async def _cached(self, key: tuple[str, ...], load: Callable[[AsyncSession], Any]) -> Any:
        now = self._clock()
        hit = self._cache.get(key)
        if hit is not None and hit[0] > now:
            return hit[1]
        try:
            async with asyncio.timeout(5), self.session() as session:
                value = await load(session)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            if hit is not None:
                return hit[1]  # a database that is away does not end the apps that were just known
            raise UnavailableError("the app registry does not answer") from error
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        self._cache[key] = (now + _CACHE_TTL_S, value)
        return value


def _upgrade(connection: Connection) -> None:
    # Instances that start together wait for each other, until the end of the transaction.
    is_sqlite = connection.dialect.name == "sqlite"
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_sqlite else f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    newest, present = ScriptDirectory.from_config(config).get_current_head(), context.get_current_revision()
    # Revisions are numbers of four digits. Newer ones only add, so that neighbouring versions share a database.
    if newest and present and present.isdigit() and present > newest:
        _log.warning("the database is of a newer version", revision=present, newest_known=newest)
        return
    command.upgrade(config, "head")


def _tune_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # Readers and a writer side by side; instances that start together wait for each other.
    for pragma in ("journal_mode=WAL", "busy_timeout=5000", "foreign_keys=ON", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _app(row: AppRow) -> App:
    known = {field.name for field in fields(AppLimits)}
    return App(row.id, row.name, row.created_at_ms, AppLimits(**{k: v for k, v in row.limits.items() if k in known}))


def _changed_limits(limits: AppLimits) -> dict[str, int]:
    defaults = asdict(AppLimits())
    return {key: value for key, value in asdict(limits).items() if value != defaults[key]}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
