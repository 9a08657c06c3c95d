"""Turns the engine's refusals into our errors, without depending on the engine's package."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .errors import MrtcError, UnavailableError, error_by_name


@contextlib.contextmanager
def engine_errors() -> Iterator[None]:
    """Maps `EngineError` (by its `code`), `EngineBusy` and `EngineClosed` raised in a block."""
    try:
        yield
    except MrtcError:
        raise
    except Exception as error:
        mapped = map_engine_error(error)
        if mapped is None:
            raise
        raise mapped from error


def map_engine_error(error: Exception) -> MrtcError | None:
    """Our error, or None if the exception is not the engine's."""
    name = type(error).__name__
    if name in ("EngineBusy", "EngineClosed"):
        return UnavailableError("the media engine is busy" if name == "EngineBusy" else "the media engine is closed")
    code = getattr(error, "code", None)
    if name == "EngineError" and isinstance(code, str):
        return error_by_name(code, str(getattr(error, "message", error)))
    return None
