"""Puts the service together: the only module that knows use cases and adapters both."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Self

from fastapi import FastAPI
from mrtc.signaling.v1 import client_pb2
from mrtc_common.clock import Clock, SystemClock
from mrtc_common.errors import MrtcError
from mrtc_common.grpc import Channels, GrpcSecurity
from mrtc_common.health import Health
from mrtc_common.http import HttpServer
from mrtc_common.ids import new_id
from mrtc_common.lease import NatsLease
from mrtc_common.log import get_logger
from mrtc_common.nats import NatsLink, NatsOptions
from mrtc_common.presence import Presence, PresenceWatch
from mrtc_common.run import serve_until
from mrtc_common.storage import LocalStorage
from mrtc_common.tasks import end_tasks

from .adapters.app_registry_sql import SqlAppRegistry
from .adapters.bus_nats import NatsBus
from .adapters.event_log_nats import NatsEventLog
from .adapters.jobs_nats import NatsJobs
from .adapters.media_nodes_grpc import GrpcMediaNodes
from .adapters.message_log_nats import NatsMessageLog
from .adapters.peers_nats import NatsPeers
from .adapters.room_store_nats import NatsRoomStore
from .adapters.session_store_nats import NatsSessionStore
from .adapters.webhook_sender_http import HttpWebhookSender
from .adapters.webhook_store_sql import SqlWebhookStore
from .app.access import Authenticator
from .app.adopter import Adopter
from .app.checkpoints import Checkpoints
from .app.context import Context, Options
from .app.http_resources import HttpResources
from .app.http_sessions import HttpSessions
from .app.join import Joiner
from .app.requests import Requests
from .app.resume import Resumer
from .app.rooms import Rooms
from .app.sessions import Sessions
from .app.webhook_dispatcher import WebhookDispatcher
from .app.webhooks import Webhooks
from .config import SignalingSettings
from .core import limits
from .core.caps import Caps
from .core.ice_servers import IceServers, TurnSecret
from .core.roster import RosterOptions
from .entrypoints.event_json import render_event
from .entrypoints.http_app import make_http_app
from .entrypoints.websocket import ConnectionLimits, WebSocketDoor
from .metrics import SignalingMetrics

_log = get_logger(__name__)

_MASTER_PROBE_S = 2.0
_MIGRATE_RETRY_S = 1.0
DEMO_APP = "demo"
WEBHOOK_LEASE = "webhooks"


class Signaling:
    """The running service. `start` needs nothing but its port; what is missing is shown at `/readyz`."""

    def __init__(self, settings: SignalingSettings, *, clock: Clock | None = None) -> None:
        self.settings = settings
        self.instance_id = new_id("sg")
        self.health = Health()
        self.metrics = SignalingMetrics()
        self.apps = SqlAppRegistry(settings.database_url, settings.secrets_key.get_secret_value())
        self._clock = clock or SystemClock()
        self._link = NatsLink(NatsOptions.from_settings(settings), name=f"signaling {self.instance_id}")
        self._channels = Channels(GrpcSecurity.from_settings(settings))
        self._nodes = GrpcMediaNodes(self._link, self._channels, settings.master_address, self._clock, settings.region)
        self.ctx = Context(
            instance_id=self.instance_id,
            clock=self._clock,
            options=_options(settings),
            rooms=NatsRoomStore(self._link),
            sessions=NatsSessionStore(self._link),
            messages=NatsMessageLog(self._link),
            bus=NatsBus(self._link),
            nodes=self._nodes,
            jobs=NatsJobs(self._link),
            apps=self.apps,
            metrics=self.metrics,
        )
        self.sessions = Sessions(self.ctx)
        self._lease = NatsLease(self._link, WEBHOOK_LEASE, self.instance_id, self._clock)
        self._presence = Presence(self._link, settings.service, self.instance_id, settings.session_grace_s)
        self._peers = PresenceWatch(self._link, settings.service, settings.session_grace_s, self._clock)
        self._sender = HttpWebhookSender(settings.webhook_networks, now_s=lambda: self._clock.unix_ms() // 1000)
        self._webhooks = SqlWebhookStore(
            self.apps.session,
            self.apps.box,
            retry_ms=round(settings.webhook_retry_s * 1000),
            now_ms=self._clock.unix_ms,
        )
        self._dispatcher = WebhookDispatcher(
            self._lease,
            NatsEventLog(self._link),
            self._webhooks,
            self._sender,
            render_event,
            self._clock,
            self.metrics,
            keep_s=settings.webhook_keep_s,
        )
        self.app = self._make_app()
        # Slack above the limit, so that a frame too large gets our error and not a bare close.
        self._http = HttpServer(
            self.app, ws="websockets-sansio", ws_max_size=2 * limits.MAX_FRAME_BYTES, ws_ping_interval=None
        )
        self._tasks: list[asyncio.Task[None]] = []
        self.port = 0

    async def start(self) -> None:
        """Listens, then connects to everything in the background. Raises OSError if the port is taken."""
        for name, detail in (
            ("nats", "NATS cannot be reached"),
            ("master", "the master does not answer"),
            ("database", "the app registry cannot be used"),
        ):
            self.health.set(name, False, detail)
        self.port = await self._http.start(self.settings.bind_ip, self.settings.http_port)
        await self._link.start()
        self._link.on_change(self.health.follow("nats", "NATS cannot be reached"))
        await self._nodes.start()
        self.sessions.start()
        await self._presence.start()
        self._http_resources.start()
        await self._peers.start()
        self._adopter.start()
        self._checkpoints.start()
        await self._lease.start()
        self._dispatcher.start()
        self._tasks = [
            asyncio.create_task(self._prepare_database(), name="database"),
            asyncio.create_task(self._probe_master(), name="master-probe"),
        ]
        _log.info("signaling serves", port=self.port, instance=self.instance_id)

    async def aclose(self) -> None:
        """Hands the sessions over and ends everything."""
        self.health.set("running", False, "shutting down")
        # First: the sessions wait for other instances, or for the next one.
        await self._adopter.aclose()
        await self._checkpoints.aclose()
        await self._peers.aclose()
        await self._presence.aclose()
        await self.sessions.shut_down()
        await self._http.aclose()
        await self._http_resources.aclose()
        await end_tasks(*self._tasks)
        await self._dispatcher.aclose()
        await self._lease.aclose()
        await self._sender.aclose()
        await self.ctx.hubs.aclose()
        await self._nodes.aclose()
        await self._channels.aclose()
        await self._link.aclose()
        await self.apps.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.aclose()

    def _make_app(self) -> FastAPI:
        authenticator = Authenticator(self.apps)
        joiner = Joiner(self.ctx, self.sessions)
        http_sessions = HttpSessions(self.ctx, self.sessions, joiner)
        self._http_resources = HttpResources(self.ctx, http_sessions, authenticator)
        self._checkpoints = Checkpoints(self.ctx, self.sessions)
        self._adopter = Adopter(self.ctx, http_sessions, NatsPeers(self._link, self._peers, self._clock))
        door = WebSocketDoor(
            self.ctx,
            self.sessions,
            authenticator,
            joiner,
            Resumer(self.ctx, self.sessions),
            Requests(self.ctx, self.sessions),
            ConnectionLimits(
                max_connections=self.settings.max_connections,
                max_requests_per_s=self.settings.max_requests_per_s,
                max_request_burst=self.settings.max_request_burst,
                first_frame_timeout_s=self.settings.first_frame_timeout_s,
            ),
        )
        return make_http_app(
            settings=self.settings,
            health=self.health,
            metrics=self.metrics,
            authenticator=authenticator,
            websocket=door,
            rooms=Rooms(self.ctx, LocalStorage(Path(self.settings.storage_root))),
            http_sessions=http_sessions,
            http_resources=self._http_resources,
            apps=self.apps,
            webhooks=Webhooks(self._webhooks, self._clock, self._dispatcher.wake),
        )

    async def _prepare_database(self) -> None:
        while True:
            try:
                await self.apps.migrate()
                if self.settings.demo:
                    await self.apps.ensure_app(DEMO_APP, "Demo")
            except MrtcError as error:
                self.health.set("database", False, error.message)
                await asyncio.sleep(_MIGRATE_RETRY_S)
            except Exception as error:
                # Whatever it is may pass, and nothing but a restart of the process would try again.
                _log.warning("the database is not ready, trying on", error=f"{type(error).__name__}: {error}"[:200])
                await asyncio.sleep(_MIGRATE_RETRY_S)
            else:
                self.health.set("database", True)
                return

    async def _probe_master(self) -> None:
        while True:
            try:
                await self._nodes.ping_master()
                self.health.set("master", True)
            except MrtcError as error:
                self.health.set("master", False, error.message)
            # Quick while it is missing, so that the suite comes up quickly; calm afterwards.
            await asyncio.sleep(_MASTER_PROBE_S if self.health.checks["master"].is_ok else 0.2)


def _options(settings: SignalingSettings) -> Options:
    fixed: tuple[client_pb2.IceServer, ...] = ()
    turn = None
    if settings.ice_urls:
        fixed = (
            client_pb2.IceServer(
                urls=settings.ice_urls,
                username=settings.ice_username,
                credential=settings.ice_credential.get_secret_value(),
            ),
        )
    if settings.turn_urls:
        turn = TurnSecret(tuple(settings.turn_urls), settings.turn_secret.get_secret_value(), settings.turn_ttl_s)
    return Options(
        grace_s=settings.session_grace_s,
        heartbeat_interval_s=settings.heartbeat_interval_s,
        empty_room_timeout_s=settings.empty_room_timeout_s,
        ice_servers=IceServers(fixed, turn),
        region=settings.region,
        whep_wait_s=settings.whep_wait_s,
        carry_timeout_s=settings.carry_timeout_s,
        max_sessions=settings.max_sessions,
        roster=RosterOptions(settings.large_room_participants, settings.max_listed_listeners),
        caps=Caps(
            settings.max_egress_bps_per_participant, settings.max_ingress_bps_per_participant, settings.max_track_bps
        ),
    )


async def serve(settings: SignalingSettings, stop: asyncio.Event) -> None:
    """Runs until `stop` is set."""
    service = Signaling(settings)
    try:
        await service.start()
        await serve_until(stop)
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await service.aclose()
