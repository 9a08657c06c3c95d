"""The REST API of a running suite, as an app's own server uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from mrtc_common.auth import AccessToken, TokenCaps, mint_token
from mrtc_signaling.adapters.app_registry_sql import SqlAppRegistry

from tests.support.suite import RunningSuite
from tests.support.waiting import wait_for

APP = "demo"


async def api_token(suite: RunningSuite) -> str:
    """A token for all of the demo app, made as the app's own servers make it."""
    return await _mint(suite, api=True)


def token_with_caps(suite: RunningSuite, room: str, identity: str, caps: TokenCaps) -> str:
    """A participant's token that limits what it may send and receive."""
    token: str = suite.run(_mint(suite, room=room, identity=identity, caps=caps))
    return token


async def _mint(suite: RunningSuite, **claims: Any) -> str:
    env = suite.process("signaling-1").env
    registry = SqlAppRegistry(env["MRTC_SIGNALING_DATABASE_URL"], env["MRTC_SIGNALING_SECRETS_KEY"])
    try:
        key = await registry.any_key(APP)
    finally:
        await registry.aclose()
    assert key is not None
    return mint_token(AccessToken(app_id=APP, key_id=key[0], **claims), key[1], ttl_s=3600)


class RoomApi:
    """Calls about one room, with a token that its admin has; or another one."""

    def __init__(self, suite: RunningSuite, room: str, token: str = "") -> None:
        token = token or suite.token(room, "api", admin="true")
        self._base = f"/v1/apps/{APP}/rooms/{room}"
        self._url = suite.url
        self._headers = {"authorization": f"Bearer {token}"}

    def call(self, method: str, path: str, **options: Any) -> Any:
        """JSON of a call that must succeed."""
        url = self._url + (path if path.startswith("/") else f"{self._base}/{path}")
        response = httpx.request(method, url, headers=self._headers, timeout=30, **options)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None

    def transport_of(self, identity: str) -> dict[str, Any]:
        """Figures of a participant's transport (docs/stats.md)."""
        people = self.call("GET", "stats")["participants"]
        found: dict[str, Any] = next(one["transport"] for one in people if one["identity"] == identity)
        return found

    def start_recording(self, mode: str, **settings: Any) -> str:
        """Starts one and returns its id."""
        identifier: str = self.call("POST", "recordings", json={"mode": mode, **settings})["id"]
        return identifier

    def recording(self, identifier: str) -> dict[str, Any]:
        """As it is now."""
        found: dict[str, Any] = self.call("GET", f"recordings/{identifier}")
        return found

    def wait_for_recording(self, identifier: str, *states: str, timeout_s: float = 30) -> dict[str, Any]:
        """Waits until it is in one of the states."""
        seen: dict[str, Any] = {}

        def reached() -> bool:
            seen.update(self.recording(identifier))
            assert seen["state"] != "failed" or "failed" in states, seen
            return seen["state"] in states

        wait_for(reached, timeout_s, f"recording {identifier} to be {states}")
        return seen

    def wait_until_recorded(self, identifier: str, count: int, until_s: float, timeout_s: float = 40) -> None:
        """Waits until so many publications, perhaps of more, are recorded up to that second of the recording."""
        ends: dict[str, float] = {}

        def reached() -> bool:
            for file in self.recording(identifier)["files"]:
                end = (file["offset_ms"] + file["duration_ms"]) / 1000
                ends[file["publication_id"]] = max(ends.get(file["publication_id"], 0.0), end)
            return sum(end >= until_s for end in ends.values()) >= count

        wait_for(reached, timeout_s, lambda: f"{count} publications to be recorded up to {until_s:.1f} s: {ends}")

    def stop_recording(self, identifier: str) -> dict[str, Any]:
        """Ends it and waits until its files are complete."""
        self.call("POST", f"recordings/{identifier}/stop")
        return self.wait_for_recording(identifier, "complete")

    def download(self, file: dict[str, Any], folder: Path) -> Path:
        """Fetches a file of a recording."""
        response = httpx.get(self._url + file["url"], headers=self._headers, timeout=30)
        assert response.status_code == 200, response.text
        path = folder / file["name"]
        path.write_bytes(response.content)
        return path

    def upload(self, path: Path) -> str:
        """Stores a media file; returns the name under which it can be played."""
        name: str = self.call("PUT", f"/v1/apps/{APP}/media/{path.name}", content=path.read_bytes())["name"]
        return name

    def start_vod(self, media: str, **settings: Any) -> str:
        """Plays a file; returns the vod's id."""
        identifier: str = self.call("POST", "vods", json={"media": media, **settings})["id"]
        return identifier

    def vod(self, identifier: str) -> dict[str, Any]:
        """As it is now."""
        found: dict[str, Any] = self.call("GET", f"vods/{identifier}")
        return found
