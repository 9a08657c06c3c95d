"""How Chromium is started for tests, and the server of the pages that run in it."""

from __future__ import annotations

import functools
import http.server
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.suite import ROOT

PAGES = Path(__file__).parent / "pages"
SDK = ROOT / "sdk" / "web" / "dist"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--auto-accept-this-tab-capture",
    "--autoplay-policy=no-user-gesture-required",
    # Without it no candidate of 127.0.0.1 is used.
    "--allow-loopback-in-peer-connection",
    # Two instances share this machine: neither may be slowed down for being in the background.
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
]


class _Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}  # noqa: RUF012

    def translate_path(self, path: str) -> str:
        """The SDK's bundle and the test pages look like one folder."""
        name = Path(path.split("?")[0]).name
        return str((SDK if name.startswith("mrtc") else PAGES) / name)

    def log_message(self, *_args: object) -> None:
        """Quiet."""


class _AnyServer(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6  # IPv4 too


@contextmanager
def serving_pages(*, is_public: bool = False) -> Iterator[int]:
    """Serves the test pages inside the block, on loopback or at all addresses of this machine; the port."""
    assert (SDK / "mrtc.mjs").is_file(), "sdk/web is not built: run `make web`"
    handler = functools.partial(_Handler)
    server = _AnyServer(("::", 0), handler) if is_public else http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, name="pages", daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join(5)
