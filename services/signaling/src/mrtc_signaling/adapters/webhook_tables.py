"""The SQL tables of webhooks and deliveries."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from .app_tables import Base

# SQLite counts by itself in columns of type INTEGER only.
_Counter = BigInteger().with_variant(Integer(), "sqlite")


class WebhookRow(Base):
    """A receiver of an app's events; its secret is encrypted."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    app_id: Mapped[str] = mapped_column(ForeignKey("apps.id", ondelete="CASCADE"), index=True)
    url: Mapped[str] = mapped_column(String(2048))
    events: Mapped[list[str]] = mapped_column(JSON, default=list)
    secret_encrypted: Mapped[bytes] = mapped_column(LargeBinary)
    is_enabled: Mapped[bool] = mapped_column(Boolean, default=True)
    created_at_ms: Mapped[int] = mapped_column(BigInteger)


class EventRow(Base):
    """An event that was taken: what is told again is known by it."""

    __tablename__ = "webhook_events"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    taken_at_ms: Mapped[int] = mapped_column(BigInteger, index=True)


class LogRow(Base):
    """How far the log of events was taken over. One row."""

    __tablename__ = "webhook_log"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    stream: Mapped[str] = mapped_column(String(64))
    sequence: Mapped[int] = mapped_column(BigInteger)


class DeliveryRow(Base):
    """An event for a receiver. Ids grow in the order of the events."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("webhook_id", "event_id"),
        Index("ix_webhook_deliveries_heads", "state", "webhook_id", "room", "id"),
        Index("ix_webhook_deliveries_created", "created_at_ms"),
    )

    id: Mapped[int] = mapped_column(_Counter, primary_key=True, autoincrement=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event_id: Mapped[str] = mapped_column(String(64))
    event_type: Mapped[str] = mapped_column(String(64))
    room: Mapped[str] = mapped_column(String(512))
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    created_at_ms: Mapped[int] = mapped_column(BigInteger)
    # When it is given up; a replay sets it anew.
    retry_until_ms: Mapped[int] = mapped_column(BigInteger)
    next_attempt_at_ms: Mapped[int] = mapped_column(BigInteger)
    delivered_at_ms: Mapped[int] = mapped_column(BigInteger, default=0)
    last_status: Mapped[int] = mapped_column(Integer, default=0)
    last_error: Mapped[str] = mapped_column(String(256), default="")
