"""`make capture ROOM=name`: writes a room's packets, in the clear, to a pcapng file per rtcmcu node for Wireshark."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrtc.media.v1 import media_service_pb2 as pb
from mrtc.media.v1 import media_service_pb2_grpc
from mrtc.node.v1 import master_service_pb2, master_service_pb2_grpc
from mrtc_common.errors import MrtcError
from mrtc_common.grpc import Channels, GrpcSecurity, call
from mrtc_common.subjects import room_key

from mrtc_embedded.dump import DEMO_APP, Access, DumpError, read_access
from mrtc_embedded.suite import ROOT


@dataclass(frozen=True)
class Wanted:
    """What to capture.

    Args:
        room_key: of which room.
        seconds: for how long.
        has_payloads: write what people say and show, too.
    """

    room_key: str
    seconds: float
    has_payloads: bool


async def capture_room(access: Access, wanted: Wanted, is_over: asyncio.Event) -> list[dict[str, Any]]:
    """Captures at every rtcmcu node side by side, until the event or the end of the time.

    A node that refuses has `error` in place of figures. Raises DumpError.
    """
    async with Channels(GrpcSecurity(access.cluster_secret)) as channels:
        master = master_service_pb2_grpc.MasterServiceStub(channels.get(access.master_address))
        request = master_service_pb2.ListNodesRequest(kind=master_service_pb2.NODE_KIND_MCU)
        try:
            nodes = (await call(master.ListNodes, request)).nodes
        except MrtcError as error:
            raise DumpError(f"the master at {access.master_address} does not answer: {error.message}") from None
        return list(await asyncio.gather(*(_capture_node(channels, node, wanted, is_over) for node in nodes)))


async def _capture_node(
    channels: Channels, node: master_service_pb2.Node, wanted: Wanted, is_over: asyncio.Event
) -> dict[str, Any]:
    media = media_service_pb2_grpc.MediaServiceStub(channels.get(node.grpc_address))
    content = pb.CAPTURE_CONTENT_PACKETS if wanted.has_payloads else pb.CAPTURE_CONTENT_HEADERS
    request = pb.StartCaptureRequest(
        room_key=wanted.room_key, content=content, max_duration_ms=round(wanted.seconds * 1000) + 1000
    )
    try:
        begun = await call(media.StartCapture, request, retries=0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(is_over.wait(), wanted.seconds)
        ended = await call(media.StopCapture, pb.StopCaptureRequest(capture_id=begun.capture_id))
    except MrtcError as error:
        return {"node": node.id, "error": error.message}
    figures = {"packets": ended.packets, "bytes": ended.bytes, "dropped": ended.dropped}
    return {"node": node.id, "path": ended.path, **figures}


async def _until_interrupted(access: Access, wanted: Wanted) -> list[dict[str, Any]]:
    is_over = asyncio.Event()
    # Not by KeyboardInterrupt: the files are to be completed.
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, is_over.set)
    return await capture_room(access, wanted, is_over)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError("more than 0, at most 86400")
    return value


def main() -> None:
    """Entry point; one JSON line per node. Exit code 1 with a sentence on stderr if no node captured."""
    parser = argparse.ArgumentParser(prog="make capture ROOM=name", description=__doc__)
    parser.add_argument("room", help="name of the room, as in its access tokens")
    parser.add_argument("--seconds", type=_seconds, default=10.0, help="for how long (default 10), or until Ctrl-C")
    parser.add_argument("--packets", action="store_true", help="whole packets; default: headers only, no media")
    parser.add_argument("--app", default=DEMO_APP, help=f"app id (default {DEMO_APP})")
    parser.add_argument("--data", type=Path, default=ROOT / "var", help="the suite's data directory (default var/)")
    arguments = parser.parse_args()
    try:
        key = room_key(arguments.app, arguments.room)
        wanted = Wanted(key, arguments.seconds, arguments.packets)
        found = asyncio.run(_until_interrupted(read_access(arguments.data), wanted))
    except MrtcError as error:
        sys.exit(f"the app or the room has no valid name: {error.message}")
    except DumpError as error:
        sys.exit(str(error))
    for line in found:
        print(json.dumps(line, ensure_ascii=False))
    if all("error" in line for line in found):
        hints = "; start the suite with `make run ARGS=--captures`, or set MRTC_RTCMCU_CAPTURE_DIR"
        sys.exit(f"nothing was captured: {found[0]['error'] if found else 'there is no rtcmcu'}{hints}")


if __name__ == "__main__":
    main()
