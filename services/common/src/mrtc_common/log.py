"""Logs: JSON lines for machines, text for people; ids are bound once and appear on every line of the task."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog

_SECRET_KEYS = ("secret", "password", "token", "authorization", "credential", "private_key", "salt", "api_key")
_REDACTED = "[redacted]"

Logger = structlog.stdlib.BoundLogger


def configure_logging(service: str, *, level: str = "info", log_format: str = "json", node: str = "") -> None:
    """Sets logging up for the process; also what libraries log through `logging` gets the same form.

    Args:
        service: bound to every line.
        level: debug, info, warning or error.
        log_format: `json` or `text`.
        node: this process's node or instance id, bound to every line if not empty.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _static_fields({"service": service} | ({"node": node} if node else {})),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    if log_format == "json":
        renderer: list[Any] = [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    else:
        renderer = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # These log every request or reconnect attempt at info; our own lines say what matters.
    for noisy in ("uvicorn", "uvicorn.error", "uvicorn.access", "httpx", "httpcore", "nats", "aioice", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def get_logger(name: str) -> Logger:
    """A logger; call with an event text and fields: `log.info("room created", room=key)`."""
    logger: Logger = structlog.stdlib.get_logger(name)
    return logger


def bind(**ids: str) -> None:
    """Binds ids (room, participant, session, request …) to all later lines of this task and its children."""
    structlog.contextvars.bind_contextvars(**ids)


@contextmanager
def bound(**ids: str) -> Iterator[None]:
    """Binds ids for a block."""
    with structlog.contextvars.bound_contextvars(**ids):
        yield


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replaces values whose key names a secret, also in nested mappings."""
    for key, value in event.items():
        if isinstance(value, dict):
            event[key] = dict(redact(None, "", dict(value)))
        elif any(part in key.lower() for part in _SECRET_KEYS) and not isinstance(value, bool):
            event[key] = _REDACTED
    return event


def _static_fields(fields: dict[str, str]) -> Any:
    def add(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for key, value in fields.items():
            event.setdefault(key, value)
        return event

    return add
