"""Firefox, driven over WebDriver BiDi (https://w3c.github.io/webdriver-bidi/), which it speaks by itself.

Playwright drives only a Firefox of its own build. This is as much of its interface as `Caller` needs.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.e2e.caller import wait_until

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
PULSEAUDIO = shutil.which("pulseaudio")
PREFERENCES: dict[str, object] = {
    # Without it no candidate of 127.0.0.1 is used.
    "media.peerconnection.ice.loopback": True,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    "media.autoplay.default": 0,
    "media.autoplay.blocking_policy": 0,
    "media.navigator.permission.disabled": True,
    "media.navigator.streams.fake": True,
    # Two windows share this machine: neither may be slowed down for being in the background.
    "dom.min_background_timeout_value": 4,
    "dom.timeout.enable_budget_timer_throttling": False,
    "widget.windows.window_occlusion_tracking.enabled": False,
    # Its viewer of JSON would let a page at such an address fetch nothing.
    "devtools.jsonview.enabled": False,
    # Nothing of it may ask the internet.
    "app.update.enabled": False,
    "app.normandy.enabled": False,
    "browser.region.network.url": "",
    "browser.safebrowsing.provider.mozilla.updateURL": "",
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "extensions.systemAddon.update.enabled": False,
    "media.gmp-manager.updateEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.dns.disablePrefetch": True,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "toolkit.telemetry.enabled": False,
}
START_S = 30.0
CALL_S = 30.0


class FirefoxPage:
    """A tab."""

    def __init__(self, session: _Session, context: str) -> None:
        self._session = session
        self._context = context

    def goto(self, url: str) -> None:
        """Loads a page."""
        self._session.ask("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, expression: str, argument: object = None) -> Any:
        """Value of an expression, or of a call of the function that it is, awaited. Raises RuntimeError."""
        script = f"""(async () => {{
            const value = ({expression});
            return JSON.stringify(await (typeof value === 'function' ? value({json.dumps(argument)}) : value));
        }})()"""
        target = {"context": self._context}
        answer = self._session.ask(
            "script.evaluate", expression=script, target=target, awaitPromise=True, userActivation=True
        )
        if answer["type"] != "success":
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']['text']}")
        text = answer["result"].get("value")
        return None if text is None else json.loads(text)

    def wait_for_function(self, expression: str) -> None:
        """Waits until an expression is true."""
        self.evaluate(
            f"new Promise((done) => {{ const look = () => ({expression}) ? done() : setTimeout(look, 20); look(); }})"
        )

    def on(self, event: str, handler: Callable[[Any], None]) -> None:
        """Hands over what is logged; errors come as messages too."""
        if event == "console":
            self._session.handlers[self._context] = handler


class _Context:
    """What one participant has for itself: storage, and a tab."""

    def __init__(self, session: _Session) -> None:
        self._session = session
        self._user = session.ask("browser.createUserContext")["userContext"]

    def new_page(self) -> FirefoxPage:
        """A tab of its own window: a tab behind another one shows no pictures."""
        created = self._session.ask("browsingContext.create", type="window", userContext=self._user)
        return FirefoxPage(self._session, created["context"])

    def close(self) -> None:
        """Closes its tabs."""
        self._session.ask("browser.removeUserContext", userContext=self._user)


class Firefox:
    """A running Firefox."""

    def __init__(self, session: _Session) -> None:
        self._session = session

    def new_context(self) -> _Context:
        """Shares nothing with others."""
        return _Context(self._session)


class _Message:
    """A line of a page's log."""

    def __init__(self, text: str) -> None:
        self.text = text


class _Session:
    """Requests, one at a time, and what is logged meanwhile."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self.handlers: dict[str, Callable[[Any], None]] = {}
        self.ask("session.new", capabilities={})
        self.ask("session.subscribe", events=["log.entryAdded"])

    def ask(self, method: str, **params: object) -> dict[str, Any]:
        """The result of a command. Raises RuntimeError when Firefox refuses it, TimeoutError."""
        number = next(self._ids)
        self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._connection.recv(timeout=CALL_S))
            if message["type"] == "event":
                self._log(message["params"])
            elif message["type"] == "error":
                raise RuntimeError(f"{method}: {message['error']}: {message['message']}")
            elif message["id"] == number:
                result: dict[str, Any] = message["result"]
                return result

    def _log(self, entry: dict[str, Any]) -> None:
        handler = self.handlers.get(entry["source"].get("context", ""))
        if handler:
            handler(_Message(str(entry.get("text"))))


@contextmanager
def running_firefox(folder: Path) -> Iterator[Firefox]:
    """Firefox inside the block, with an empty profile in this folder."""
    assert FIREFOX is not None, "firefox is not installed (apt install firefox-esr)"
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()]
    (folder / "user.js").write_text("".join(lines))
    command = [FIREFOX, "--headless", "--no-remote", "--remote-debugging-port", "0", "--profile", str(folder)]
    log = folder / "firefox.log"
    with _sound_server() as sound, _running(command, log, {"PULSE_SERVER": sound}):
        address = wait_until(lambda: re.search(r"listening on (ws://\S+)", log.read_text()), log.read_text, START_S)[1]
        with connect(f"{address}/session", max_size=None) as connection:
            yield Firefox(_Session(connection))


@contextmanager
def _sound_server() -> Iterator[str]:
    """Address of a sound server without a device: without one Firefox's `AudioContext` never runs."""
    assert PULSEAUDIO is not None, "pulseaudio is not installed (apt install pulseaudio)"
    # Not below the profile: the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="pulse") as home:
        socket, log = Path(home) / "socket", Path(home) / "log"
        modules = ("module-null-sink", f"module-native-protocol-unix socket={socket} auth-anonymous=1")
        options = [f"--load={module}" for module in modules]
        command = [PULSEAUDIO, "-n", "--exit-idle-time=-1", "--use-pid-file=no", "--daemonize=no", *options]
        with _running(command, log, {"HOME": home, "XDG_RUNTIME_DIR": home}):
            wait_until(socket.exists, log.read_text, START_S)
            yield f"unix:{socket}"


@contextmanager
def _running(command: list[str], log: Path, env: dict[str, str]) -> Iterator[None]:
    """A process inside the block."""
    with (
        log.open("w") as output,
        subprocess.Popen(command, env=os.environ | env, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)
