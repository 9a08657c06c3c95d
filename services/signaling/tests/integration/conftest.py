"""A signaling service on real NATS, with media nodes and a master in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest_asyncio
from mrtc.common.v1 import common_pb2
from mrtc.media.v1 import media_service_pb2
from mrtc_common.auth import AccessToken, TokenCaps, TokenGrants, mint_token
from mrtc_common.grpc import GrpcSecurity
from mrtc_common.nats import NatsLink
from mrtc_common.testing import NatsServer, wait_until
from mrtc_common.testing.fixtures import *  # noqa: F403
from mrtc_signaling.bootstrap import Signaling
from mrtc_signaling.config import SignalingSettings
from mrtc_signaling.testing import Client, FakeMaster, FakeNode

SECRET = "cluster-secret-of-the-tests"


@dataclass
class World:
    """Everything that a test needs."""

    tmp: Path
    nats: NatsServer
    link: NatsLink
    nodes: list[FakeNode] = field(default_factory=list)
    services: list[Signaling] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    directory: dict[str, common_pb2.Track] = field(default_factory=dict)
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    master: FakeMaster | None = None

    async def add_node(self) -> FakeNode:
        node = await FakeNode(self.link, GrpcSecurity(SECRET), self.directory).start()
        self.nodes.append(node)
        return node

    async def add_service(self, **settings: object) -> Signaling:
        assert self.master is not None
        values: dict[str, object] = {
            "http_port": 0,
            "bind_ip": "127.0.0.1",
            "cluster_secret": SECRET,
            "secrets_key": "key-of-the-app-secrets",
            "nats_urls": [self.nats.url],
            "master_address": self.master.address,
            "database_url": f"sqlite+aiosqlite:///{self.tmp / 'apps.sqlite3'}",
            "storage_root": str(self.tmp / "files"),
            "demo": True,
            "session_grace_s": 30.0,
            "whep_wait_s": 0.3,
        }
        service = Signaling(SignalingSettings.from_values(values | settings))
        await service.start()
        self.services.append(service)
        await wait_until(lambda: service.health.is_ready, what=f"ready: {service.health.missing}")
        return service

    async def ask_to_move(self, node: FakeNode, transport_id: str, until: Callable[[], bool]) -> None:
        """As a node that drains: again and again, since the other node may not be known everywhere yet."""

        def ask() -> bool:
            is_done = until()
            if not is_done:
                node.emit(transport_id, move_wanted=media_service_pb2.MoveWanted())
            return is_done

        await wait_until(ask, interval_s=0.2, what="moved")

    def url(self, number: int = 0) -> str:
        return f"http://127.0.0.1:{self.services[number].port}"

    async def token(
        self,
        identity: str = "alice",
        room: str = "r1",
        *,
        app: str = "demo",
        ttl_s: int = 600,
        api: bool = False,
        hidden: bool = False,
        name: str = "",
        caps: TokenCaps | None = None,
        **grants: bool,
    ) -> str:
        if app not in self.keys:
            self.keys[app] = await self.services[0].apps.ensure_app(app, app)
        key_id, secret = self.keys[app]
        token = AccessToken(
            app_id=app,
            key_id=key_id,
            identity=identity,
            room=room,
            name=name,
            grants=TokenGrants(**grants),
            api=api,
            hidden=hidden,
            caps=caps or TokenCaps(),
        )
        return mint_token(token, secret, ttl_s=ttl_s)

    def client(self, number: int = 0, **options: bool) -> Client:
        client = Client(self.url(number), **options)
        self.clients.append(client)
        return client

    async def joined(self, identity: str, number: int = 0, **fields: object) -> Client:
        client = self.client(number)
        await client.join(await self.token(identity), **fields)
        return client


@pytest_asyncio.fixture
async def world(tmp_path: Path, nats_server: NatsServer, nats_link: NatsLink) -> AsyncIterator[World]:
    world = World(tmp_path, nats_server, nats_link)
    world.master = await FakeMaster(GrpcSecurity(SECRET), world.nodes).start()
    await world.add_node()
    await world.add_service()
    yield world
    for client in world.clients:
        await client.aclose()
    for service in world.services:
        await service.aclose()
    for node in world.nodes:
        await node.aclose()
    await world.master.aclose()
