"""What the media sockets do on the wire."""

import socket
import struct

import pytest
from aioice import stun
from aiortc.sdp import SessionDescription
from mrtc_engine import AsyncEngine

from . import peers

pytestmark = pytest.mark.integration

EF = 46
CLIENT_UFRAG = SessionDescription.parse(peers.OFFER).media[0].ice.usernameFragment


def check(answer: str) -> bytes:
    """A nominating ICE check of the client of `peers.OFFER`."""
    ice = SessionDescription.parse(answer).media[0].ice
    message = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    message.attributes["USERNAME"] = f"{ice.usernameFragment}:{CLIENT_UFRAG}"
    message.attributes["PRIORITY"] = 1
    message.attributes["ICE-CONTROLLING"] = 1
    message.attributes["USE-CANDIDATE"] = None
    message.add_message_integrity(ice.password.encode())
    message.add_fingerprint()
    return bytes(message)


def traffic_class(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The traffic class (or TOS) that a datagram came with."""
    value = next(
        data
        for level, kind, data in ancillary
        if (level, kind) in {(socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)}
    )
    return value[0] if len(value) == 1 else int(struct.unpack("i", value)[0])


@pytest.mark.parametrize(("bind_ip", "ip"), [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1")])
async def test_what_is_sent_carries_the_dscp(bind_ip: str, ip: str) -> None:
    """Over IPv4, over IPv6, and over IPv4 from a socket that serves both."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    settings = peers.config(bind_ip=bind_ip, advertised_ips=[ip], workers=1, media_dscp=EF)
    async with AsyncEngine(settings) as engine:
        answer = (await engine.create_transport(transport="t", room="r", offer=peers.OFFER)).answer
        candidate = next(c for c in SessionDescription.parse(answer).media[0].ice_candidates if c.protocol == "udp")
        assert candidate.ip == ip
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            if family == socket.AF_INET:
                client.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
            else:
                client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
            client.settimeout(peers.DEADLINE_S)
            client.sendto(check(answer), (candidate.ip, candidate.port))
            reply, ancillary, _, _ = client.recvmsg(2_000, 200)
        assert stun.parse_message(reply).message_class == stun.Class.RESPONSE
        assert traffic_class(ancillary) == EF << 2


async def test_an_address_may_have_only_so_many_handshakes_under_way() -> None:
    """The thousand and first client of one address that begins to connect waits; a closed one makes room."""
    limit = 1_000
    async with AsyncEngine(peers.config(workers=1)) as engine:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(peers.DEADLINE_S)

            async def begin(name: str) -> tuple[tuple[str, int], bytes]:
                answer = (await engine.create_transport(transport=name, room="r", offer=peers.OFFER)).answer
                candidate = SessionDescription.parse(answer).media[0].ice_candidates[0]
                return (candidate.ip, candidate.port), check(answer)

            for n in range(limit):
                address, message = await begin(f"t{n}")
                client.sendto(message, address)
                client.recv(2_000)
            address, message = await begin("late")
            client.sendto(message, address)
            await peers.until(lambda: engine.counters()[0]["drop_half_open_limit"] == 1, "the refusal")
            await engine.close_transport(transport="t0")
            client.sendto(message, address)
            while (reply := client.recv(2_000))[0] > 3:
                """DTLS's farewell to the one that was closed."""
            assert stun.parse_message(reply).message_class == stun.Class.RESPONSE
