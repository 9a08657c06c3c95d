"""The SQL tables of apps and their keys."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, ForeignKey, LargeBinary, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Which migration was the last one; a database may have other programs' tables too.
VERSION_TABLE = "mrtc_signaling_version"


class Base(DeclarativeBase):
    """All tables of this service."""


class AppRow(Base):
    """An app."""

    __tablename__ = "apps"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(256))
    created_at_ms: Mapped[int] = mapped_column(BigInteger)
    # The fields of ports.AppLimits that differ from their defaults.
    limits: Mapped[dict[str, int]] = mapped_column(JSON, default=dict)


class AppKeyRow(Base):
    """A key of an app; its secret is encrypted."""

    __tablename__ = "app_keys"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    app_id: Mapped[str] = mapped_column(ForeignKey("apps.id", ondelete="CASCADE"), index=True)
    secret_encrypted: Mapped[bytes] = mapped_column(LargeBinary)
    created_at_ms: Mapped[int] = mapped_column(BigInteger)
    revoked_at_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)
