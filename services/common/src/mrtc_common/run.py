"""The outermost frame of a service process: settings, logging, signals, exit status."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from .log import configure_logging, get_logger
from .settings import Settings, SettingsError
from .tasks import end_tasks

S = TypeVar("S", bound=Settings)

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_BAD_SETTINGS = 2


def run_service(settings_type: type[S], serve: Callable[[S, asyncio.Event], Awaitable[None]]) -> int:
    """Runs a service until SIGTERM or SIGINT and returns the exit status.

    Args:
        serve: starts everything, waits (`serve_until`), ends everything. A second signal cancels it.
    """
    try:
        settings = settings_type.load()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_BAD_SETTINGS
    configure_logging(settings.service, level=settings.log_level, log_format=settings.log_format)
    log = get_logger("mrtc.run")
    try:
        asyncio.run(_run(settings, serve))
    except OSError as error:
        log.error("the service cannot run", error=str(error))
        return EXIT_FAILURE
    except asyncio.CancelledError:
        return EXIT_FAILURE
    except Exception:
        log.exception("the service failed")
        return EXIT_FAILURE
    return EXIT_OK


async def serve_until(stop: asyncio.Event) -> None:
    """Waits for the end, when everything is up.

    What is there by now is there for good, so that the collector need not look at it again: a full collection would
    hold the event loop up for up to 0.15 s each time.
    """
    gc.collect()
    gc.freeze()
    await stop.wait()


async def _run(settings: S, serve: Callable[[S, asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def on_signal() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await serve(settings, stop)
    finally:
        # `asyncio.run` would cancel what is left once only, and wait for it for ever.
        await end_tasks(*(asyncio.all_tasks() - {task}))
