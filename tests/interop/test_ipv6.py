"""A call over IPv6 alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from mrtc_sdk.pattern import PatternTrack

from tests.support.media import Watcher, joined, remote_track
from tests.support.networks import namespace, needs_namespaces
from tests.support.suite import running_suite

pytestmark = pytest.mark.integration


async def test_a_node_with_an_ipv6_address_only(tmp_path: Path) -> None:
    """Its candidates are IPv6, clients reach signaling by IPv6, and pictures go both ways."""
    needs_namespaces()
    with namespace(tmp_path) as place:
        address = place.add_link(is_v6=True).host
        suite_of = running_suite(
            tmp_path,
            mcus=1,
            mcu_workers=1,
            bind_ip="::",
            services=("master", "rtcmcu", "signaling"),
            advertised_ips=(address,),
            env={"MRTC_RTCMCU_MEDIA_BIND_IP": "::"},
        )
        suite = await asyncio.to_thread(suite_of.__enter__)
        try:
            url = f"http://[{address}]:{suite.suite.http_ports['signaling-1']}"
            async with (
                joined(url, suite.token("six", "a"), "six") as a,
                joined(url, suite.token("six", "b"), "six") as b,
            ):
                await a.publish(PatternTrack(17))
                await b.publish(PatternTrack(202))
                for me, other, number in ((b, "a", 17), (a, "b", 202)):
                    picture = Watcher((await remote_track(me, "video", other)).media)
                    await picture.sees(number)
                    await picture.aclose()
        finally:
            await asyncio.to_thread(suite_of.__exit__, None, None, None)
