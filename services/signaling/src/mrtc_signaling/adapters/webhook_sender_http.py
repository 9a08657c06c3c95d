"""Sends signed requests to receivers, and only where it may: never into the network that the suite runs in."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence

import httpx

from mrtc_signaling import __version__
from mrtc_signaling.core.webhooks import Answer, DueDelivery, sign

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_TIMEOUT_S = 10.0
# RFC 6052 and RFC 8215: IPv4 addresses behind a translator; the second prefix is the operator's own.
_NAT64, _LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48")
_MAX_CONNECTIONS = 64


class HttpWebhookSender:
    """See `webhook_ports.WebhookSender`.

    A name is looked up once for each request, its addresses are checked, and the connection goes to the very address
    that was checked. Redirects are not followed, and of an answer only its status is read.

    Args:
        allowed: private networks where receivers may be all the same.
    """

    def __init__(self, allowed: Sequence[Network], *, now_s: Callable[[], int]) -> None:
        self._allowed = tuple(allowed)
        self._now_s = now_s
        limits = httpx.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_CONNECTIONS)
        self._client = httpx.AsyncClient(timeout=_TIMEOUT_S, limits=limits, follow_redirects=False, trust_env=False)

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._client.aclose()

    async def send(self, delivery: DueDelivery) -> Answer:
        """See the port."""
        headers = sign(delivery.secret, delivery.event_id, self._now_s(), delivery.body)
        headers |= {"content-type": "application/json", "user-agent": f"mrtc-webhooks/{__version__}"}
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await self._post(httpx.URL(delivery.url), delivery.body, headers)
        except _ForbiddenAddressError:
            return Answer(error="the host has no address where webhooks may go")
        except TimeoutError:
            return Answer(error=f"no answer within {_TIMEOUT_S:.0f} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ssl.SSLError, UnicodeError) as error:
            return Answer(error=f"{type(error).__name__}: {error}"[:200])

    async def _post(self, url: httpx.URL, body: str, headers: dict[str, str]) -> Answer:
        address = await self._address(url)
        headers["host"] = url.netloc.decode("ascii")
        request = self._client.build_request(
            "POST",
            url.copy_with(host=str(address)),
            content=body.encode(),
            headers=headers,
            extensions={"sni_hostname": url.host},
        )
        response = await self._client.send(request, stream=True)
        try:
            return Answer(response.status_code, "" if response.is_success else f"status {response.status_code}")
        finally:
            await response.aclose()

    async def _address(self, url: httpx.URL) -> Address:
        port = url.port or (443 if url.scheme == "https" else 80)
        found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        for _family, _type, _proto, _name, target in found:
            address = ipaddress.ip_address(str(target[0]).partition("%")[0])
            if is_permitted(address, self._allowed):
                return address
        raise _ForbiddenAddressError


class _ForbiddenAddressError(Exception):
    """No address of the host may be spoken to."""


def is_permitted(address: Address, allowed: Sequence[Network]) -> bool:
    """True for public addresses, and for those in `allowed`. An IPv6 address that wraps an IPv4 one counts as that."""
    if isinstance(address, ipaddress.IPv6Address):
        wrapped = _wrapped(address)
        if wrapped is not None:
            return is_permitted(wrapped, allowed)
    if any(address.version == network.version and address in network for network in allowed):
        return True
    return address.is_global and not address.is_multicast and address not in _LOCAL_NAT64


def _wrapped(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
