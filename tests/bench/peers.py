"""The load of `forward_bench`: str0m peers, for shapes that `sfuload` has not, through the services or without them."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from mrtc.common.v1 import common_pb2
from mrtc.signaling.v1 import client_pb2
from mrtc_sdk.signal import SignalClient

from tests.bench.load import LoadError, on_cores
from tests.bench.profiles import Profile

_TIMEOUT_S = 300
_HTTP_TIMEOUT_S = 60


def build(root: Path) -> Path:
    """The built example. Raises CalledProcessError."""
    argv = ["cargo", "build", "--release", "-q", "--locked", "-p", "mrtc-net", "--example", "forward_bench"]
    subprocess.run(argv, cwd=root / "engine", check=True)
    return root / "engine" / "target" / "release" / "examples" / "forward_bench"


def run_engine_alone(binary: Path, profile: Profile, seconds: int, *, is_realtime: bool) -> dict[str, Any]:
    """The engine with sockets but without services; fields as in README.md. Raises LoadError."""
    if profile.shape in ("meeting", "joins") or profile.kind == "audio":
        raise LoadError(f"{profile.name} needs sfuload")
    priority = ["chrt", "-r", "5"] if is_realtime else []
    argv = [*priority, str(binary), *_arguments(profile, seconds)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        raise LoadError(f"the engine's bench failed:\n{done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return {**figures, "errors": 0, "load": "forward_bench"}


@dataclass(frozen=True)
class Door:
    """How peers get in.

    Attributes:
        url: of the suite.
        room: its name.
        token: of its admin.
        is_websocket: all join by the client protocol, each as a participant of its own; False: by WHIP and WHEP.
    """

    url: str
    room: str
    token: str
    is_websocket: bool = False


class PeerLoad:
    """One run of the peers against the services."""

    def __init__(self, binary: Path, cores: set[int], *, is_realtime: bool) -> None:
        self._argv = [*on_cores(cores, is_realtime=is_realtime), str(binary), "--load"]
        self._signals: list[SignalClient] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[str] = []

    async def run(
        self, door: Door, profile: Profile, seconds: int, on_phase: Callable[[str], Awaitable[None]]
    ) -> dict[str, Any]:
        """Runs a profile and returns what the peers counted; `on_phase` is told of each phase. Raises LoadError."""
        process = await asyncio.create_subprocess_exec(
            *self._argv, *_arguments(profile, seconds), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        limits = httpx.Limits(max_connections=None)
        headers = {"authorization": f"Bearer {door.token}", "content-type": "application/sdp"}
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S),
                httpx.AsyncClient(headers=headers, limits=limits, timeout=_HTTP_TIMEOUT_S) as http,
            ):
                return await self._follow(process, door, http, on_phase)
        except TimeoutError:
            raise LoadError(f"the peers did not end within {_TIMEOUT_S} s") from None
        finally:
            for task in self._tasks:
                task.cancel()
            for signal in self._signals:
                await signal.aclose()
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _follow(
        self,
        process: asyncio.subprocess.Process,
        door: Door,
        http: httpx.AsyncClient,
        on_phase: Callable[[str], Awaitable[None]],
    ) -> dict[str, Any]:
        assert process.stdout is not None
        while text := await process.stdout.readline():
            line = json.loads(text)
            if "phase" in line:
                await on_phase(line["phase"])
            elif "offer" in line:
                task = asyncio.create_task(self._join(process, door, http, line))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                first = self._errors[0] if self._errors else ""
                return {**line["result"], "errors": len(self._errors), "first_error": first}
        raise LoadError("the peers ended early; " + "; ".join(self._errors[:1]))

    async def _join(
        self, process: asyncio.subprocess.Process, door: Door, http: httpx.AsyncClient, line: dict[str, Any]
    ) -> None:
        try:
            if line["role"] == "idle" or door.is_websocket:
                answer = await self._join_by_websocket(door, http, line)
            else:
                path = "whip" if line["role"] == "publish" else "whep"
                reply = await http.post(f"{door.url}/{path}/{door.room}/pub", content=line["offer"])
                reply.raise_for_status()
                answer = reply.text
        except Exception as error:  # whatever it is, the run goes on without this one and tells
            self._errors.append(f"client {line['client']}: {error!r}")
            return
        assert process.stdin is not None
        process.stdin.write(json.dumps({"client": line["client"], "answer": answer}).encode() + b"\n")

    async def _join_by_websocket(self, door: Door, http: httpx.AsyncClient, line: dict[str, Any]) -> str:
        """A participant by the client protocol; its session lives until the run ends."""

        async def ignore(_: Any) -> None:
            return None

        identity = f"{line['role']}-{line['client']}"
        got = await http.get(f"{door.url}/demo/token", params={"room": door.room, "identity": identity})
        signal = SignalClient(door.url, ignore, ignore, lambda _: None)
        self._signals.append(signal)
        request = client_pb2.JoinRequest(
            token=got.json()["token"], room=door.room, offer=line["offer"], takes_participants_changed=True
        )
        if line["role"] == "publish":
            request.publications.append(_video(line["offer"]))
        return (await signal.join(request)).answer


def _video(offer: str) -> client_pb2.NewPublication:
    """What a publisher's only m-line carries."""
    mid = next(line.removeprefix("a=mid:") for line in offer.splitlines() if line.startswith("a=mid:"))
    track = client_pb2.NewTrack(kind=common_pb2.TRACK_KIND_VIDEO, source=common_pb2.TRACK_SOURCE_CAMERA, mid=mid)
    return client_pb2.NewPublication(cid="video", tracks=[track])


def _arguments(profile: Profile, seconds: int) -> list[str]:
    argv = ["--shape", profile.shape, "--subscribers", str(profile.subscribers)]
    return [*argv, "--extra", str(profile.extra), "--seconds", str(seconds)]
