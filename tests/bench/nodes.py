"""One room over several nodes: `python -m tests.bench.nodes`. What crosses must grow with nodes, not with viewers.

One publisher of video, so many receivers, each a participant of its own by the client protocol (or by WHEP), nodes that
take only their share of them. Prints one JSON line: the transports of each node, what they got, and how many datagrams
each node sent to the others for each packet of the publisher.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from mrtc_embedded.suite import Suite, SuiteOptions, running

from tests.bench import peers
from tests.bench.peers import Door, PeerLoad
from tests.bench.profiles import Profile
from tests.bench.services import SERVICES, samples

_ROOT = Path(__file__).resolve().parents[2]
_SENT = "mrtc_rtcmcu_engine_tx_relay_datagrams_total"
_CAME = "mrtc_rtcmcu_engine_rx_rtp_packets_total"
_TRANSPORTS = "mrtc_rtcmcu_transports_count"


async def figures_of(suite: Suite, name: str) -> dict[str, float]:
    """A node's counters, over all workers."""
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"http://127.0.0.1:{suite.http_ports[name]}/metrics")).text
    found: dict[str, float] = {}
    for metric, _, value in samples(text):
        found[metric] = found.get(metric, 0.0) + value
    return found


async def run(viewers: int, nodes: int, seconds: int, max_edges: int, *, is_websocket: bool) -> dict[str, Any]:
    """One run; a node sends a track to `max_edges` others, 0: to all that want it."""
    share = math.ceil((viewers + 1) / nodes) + 1
    names = [f"rtcmcu-{number + 1}" for number in range(nodes)]
    env = {"MRTC_RTCMCU_MAX_TRANSPORTS": str(share), "MRTC_RTCMCU_RELAY_MAX_EDGES": str(max_edges)}
    options = {"mcus": nodes, "mcu_workers": 1, "services": SERVICES, "env": env}
    with tempfile.TemporaryDirectory(prefix="mrtc-nodes-") as data:
        async with running(SuiteOptions(data_dir=Path(data), **options)) as suite:
            async with httpx.AsyncClient() as http:
                got = await http.get(f"{suite.url}/demo/token", params={"room": "large", "identity": "pub"})
            marks: dict[str, list[dict[str, float]]] = {}

            async def on_phase(phase: str) -> None:
                marks[phase] = [await figures_of(suite, name) for name in names]

            load = PeerLoad(peers.build(_ROOT), set(range(2)), is_realtime=False)
            door = Door(suite.url, "large", got.json()["token"], is_websocket)
            counted = await load.run(door, Profile("nodes", viewers), seconds, on_phase)
            begin, end = marks["begin"], marks["end"]
    about = {"nodes": nodes, "max_edges": max_edges, "door": "websocket" if is_websocket else "whep"}
    return about | counted | summary(begin, end)


def summary(begin: list[dict[str, float]], end: list[dict[str, float]]) -> dict[str, Any]:
    """What the nodes did in the time that was measured."""
    grown = [
        {key: after[key] - before.get(key, 0.0) for key in after} for before, after in zip(begin, end, strict=True)
    ]
    published = max(node.get(_CAME, 0.0) for node in grown)
    return {
        "transports": [round(node.get(_TRANSPORTS, 0.0)) for node in end],
        "published_packets": round(published),
        "relayed_per_packet": [round(node.get(_SENT, 0.0) / published, 2) for node in grown],
        "publisher": next(number for number, node in enumerate(grown) if node.get(_CAME, 0.0) == published),
    }


def main() -> int:
    """Prints the line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.nodes", description=__doc__)
    parser.add_argument("--viewers", type=int, default=300, help="how many receive (default 300)")
    parser.add_argument("--nodes", type=int, default=3, help="rtcmcu nodes (default 3)")
    parser.add_argument("--max-edges", type=int, default=8, help="relay_max_edges; 0: no tree (default 8)")
    parser.add_argument("--seconds", type=int, default=10, help="how long is measured (default 10)")
    parser.add_argument("--whep", action="store_true", help="receivers come by WHEP, not by the client protocol")
    args = parser.parse_args()
    measured = run(args.viewers, args.nodes, args.seconds, args.max_edges, is_websocket=not args.whep)
    print(json.dumps(asyncio.run(measured)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
