"""`make dump ROOM=name`: prints the forwarding state of a room of the running embedded suite, node by node, as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrtc.media.v1 import media_service_pb2, media_service_pb2_grpc
from mrtc.node.v1 import master_service_pb2, master_service_pb2_grpc
from mrtc_common.errors import MrtcError
from mrtc_common.grpc import Channels, GrpcSecurity, call
from mrtc_common.subjects import room_key

from mrtc_embedded.suite import LOOPBACK, ROOT, SECRETS_FILE, SUITE_FILE

DEMO_APP = "demo"


class DumpError(RuntimeError):
    """The state cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Access:
    """How to reach a running suite."""

    master_address: str
    cluster_secret: str = field(repr=False)


def read_access(data_dir: Path) -> Access:
    """What a running suite left in its data directory. Raises DumpError."""
    try:
        ports = json.loads((data_dir / SUITE_FILE).read_text())
        secrets = json.loads((data_dir / SECRETS_FILE).read_text())
        return Access(f"{LOOPBACK}:{int(ports['master_grpc_port'])}", str(secrets["cluster_secret"]))
    except FileNotFoundError as error:
        raise DumpError(
            f"no suite is running on {data_dir} ({error.filename} is absent); start one: make run"
        ) from None
    except PermissionError as error:
        raise DumpError(f"{error.filename} belongs to the user who runs the suite") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DumpError(f"{data_dir} holds a damaged {SUITE_FILE} or {SECRETS_FILE}: {error}") from None


async def dump_room(access: Access, app: str, room: str) -> dict[str, Any]:
    """The state of a room on every rtcmcu node, shapes as in docs/stats.md. Raises DumpError.

    A node that does not answer has `error` in place of `dump`.
    """
    try:
        key = room_key(app, room)
    except MrtcError as error:
        raise DumpError(f"the app or the room has no valid name: {error.message}") from None
    async with Channels(GrpcSecurity(access.cluster_secret)) as channels:
        master = master_service_pb2_grpc.MasterServiceStub(channels.get(access.master_address))
        request = master_service_pb2.ListNodesRequest(kind=master_service_pb2.NODE_KIND_MCU)
        try:
            nodes = (await call(master.ListNodes, request)).nodes
        except MrtcError as error:
            message = f"the master at {access.master_address} does not answer: {error.message}"
            raise DumpError(f"{message}; is the suite running?") from None
        dumps = await asyncio.gather(*(_dump_node(channels, node, key) for node in nodes))
    return {"app": app, "room": room, "room_key": key, "nodes": dumps}


async def _dump_node(channels: Channels, node: master_service_pb2.Node, key: str) -> dict[str, Any]:
    state = master_service_pb2.NodeState.Name(node.state).removeprefix("NODE_STATE_").lower()
    about: dict[str, Any] = {"id": node.id, "grpc_address": node.grpc_address, "state": state}
    media = media_service_pb2_grpc.MediaServiceStub(channels.get(node.grpc_address))
    try:
        answer = await call(media.DumpRoom, media_service_pb2.DumpRoomRequest(room_key=key))
    except MrtcError as error:
        return about | {"error": error.message}
    return about | {"dump": json.loads(answer.json)}


def readable(value: Any, indent: int = 0) -> str:
    """JSON with few lines: of an object all that is no list of objects is in one, whose it is in front."""
    if isinstance(value, dict):
        value = {key: value[key] for key in sorted(value, key=_rank)}
    if _is_flat(value):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        lines, ends = [readable(item, indent + 2) for item in value], "[]"
    else:
        flat = {key: item for key, item in value.items() if _is_flat(item)}
        lines = [json.dumps(flat, ensure_ascii=False)[1:-1]] if flat else []
        nested = {key: item for key, item in value.items() if key not in flat}
        lines += [f"{json.dumps(key)}: {readable(item, indent + 2)}" for key, item in nested.items()]
        ends = "{}"
    margin = "\n" + " " * indent
    return ends[0] + ",".join(f"{margin}  {line}" for line in lines) + margin + ends[1]


def _is_flat(value: Any) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(not isinstance(item, dict) and _is_flat(item) for item in items)


def _rank(key: str) -> tuple[int, str]:
    first = ("id", "identity", "participant_id", "mid", "track", "sent_track")
    return (first.index(key) if key in first else len(first), key)


def main() -> None:
    """Entry point; exit code 1 with a sentence on stderr if there is nothing to read from."""
    parser = argparse.ArgumentParser(prog="make dump ROOM=name", description=__doc__)
    parser.add_argument("room", help="name of the room, as in its access tokens")
    parser.add_argument("--app", default=DEMO_APP, help=f"app id (default {DEMO_APP})")
    parser.add_argument("--data", type=Path, default=ROOT / "var", help="the suite's data directory (default var/)")
    arguments = parser.parse_args()
    try:
        access = read_access(arguments.data)
        dumped = asyncio.run(dump_room(access, arguments.app, arguments.room))
    except DumpError as error:
        sys.exit(str(error))
    print(readable(dumped))


if __name__ == "__main__":
    main()
