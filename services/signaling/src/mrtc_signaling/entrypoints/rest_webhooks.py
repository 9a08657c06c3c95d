"""The REST API of webhooks: `/v1/apps/{app}/webhooks…`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field

from mrtc_signaling.app.access import Access, Authenticator
from mrtc_signaling.app.webhooks import Webhooks
from mrtc_signaling.core import webhooks as core
from mrtc_signaling.core.webhooks import MAX_URL_BYTES, DeliveryState

from .bearer import authenticate
from .rest_models import Body, Problem

Id = Annotated[str, Path(min_length=1, max_length=128)]
_MAX_EVENT_IDS = 1000
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {"application/problem+json": {}}} for status in (400, 401, 403, 404, 503)
}


class CreateWebhook(Body):
    """A receiver to be."""

    url: str = Field(min_length=1, max_length=MAX_URL_BYTES)
    events: list[str] = Field([], max_length=64, description="Types that it wants; empty: all.")


class ChangeWebhook(Body):
    """What is given changes."""

    url: str | None = Field(None, min_length=1, max_length=MAX_URL_BYTES)
    events: list[str] | None = Field(None, max_length=64)
    is_enabled: bool | None = Field(None, description="False: it is told nothing; what waits goes on later.")


class Webhook(BaseModel):
    """A receiver of events."""

    id: str
    url: str
    events: list[str]
    is_enabled: bool
    created_at_ms: int

    @classmethod
    def of(cls, webhook: core.Webhook) -> Webhook:
        """From the core's."""
        return cls(
            id=webhook.id,
            url=webhook.url,
            events=list(webhook.events),
            is_enabled=webhook.is_enabled,
            created_at_ms=webhook.created_at_ms,
        )


class NewWebhook(Webhook):
    """A receiver with the secret that its requests are signed with, which is shown this once."""

    secret: str


class WebhookList(BaseModel):
    """Receivers."""

    webhooks: list[Webhook]


class Delivery(BaseModel):
    """An event and how far it is."""

    id: int
    event_id: str
    type: str
    room: str
    state: DeliveryState
    attempts: int
    created_at_ms: int
    next_attempt_at_ms: int | None
    delivered_at_ms: int | None
    last_status: int | None
    last_error: str

    @classmethod
    def of(cls, delivery: core.Delivery) -> Delivery:
        """From the core's."""
        is_pending = delivery.state == DeliveryState.PENDING
        return cls(
            id=delivery.id,
            event_id=delivery.event_id,
            type=delivery.event_type,
            room=delivery.room,
            state=delivery.state,
            attempts=delivery.attempts,
            created_at_ms=delivery.created_at_ms,
            next_attempt_at_ms=delivery.next_attempt_at_ms if is_pending else None,
            delivered_at_ms=delivery.delivered_at_ms or None,
            last_status=delivery.last_status or None,
            last_error=delivery.last_error,
        )


class DeliveryList(BaseModel):
    """Deliveries, newest first; `next_before` continues the list."""

    deliveries: list[Delivery]
    next_before: int | None


class Replay(Body):
    """Which events are to be delivered again; conditions that are not given hold for all."""

    state: Literal["delivered", "failed", "any"] = "any"
    event_ids: list[str] = Field([], max_length=_MAX_EVENT_IDS)
    from_ms: int = Field(0, ge=0, description="Unix milliseconds.")
    to_ms: int = Field(0, ge=0, description="Unix milliseconds; 0: now.")


class Replayed(BaseModel):
    """How many events wait again."""

    queued: int


class TestSent(BaseModel):
    """The id of the test event."""

    event_id: str


def make_webhook_router(webhooks: Webhooks, authenticator: Authenticator) -> APIRouter:
    """The routes."""

    async def app_access(request: Request, app: Id) -> Access:
        access = await authenticate(request, authenticator)
        access.check_admin(app)
        return access

    router = APIRouter(
        prefix="/v1/apps/{app}/webhooks", tags=["webhooks"], responses=_PROBLEMS, dependencies=[Depends(app_access)]
    )
    _add_webhooks(router, webhooks)
    _add_deliveries(router, webhooks)
    return router


def _add_webhooks(router: APIRouter, webhooks: Webhooks) -> None:
    @router.post("", status_code=201)
    async def create_webhook(app: Id, body: CreateWebhook) -> NewWebhook:
        """Has the app's events sent to a URL from now on."""
        webhook, secret = await webhooks.create(app, body.url, body.events)
        return NewWebhook(**Webhook.of(webhook).model_dump(), secret=secret)

    @router.get("")
    async def list_webhooks(app: Id) -> WebhookList:
        """The app's webhooks."""
        return WebhookList(webhooks=[Webhook.of(webhook) for webhook in await webhooks.list_webhooks(app)])

    @router.get("/{webhook}")
    async def get_webhook(app: Id, webhook: Id) -> Webhook:
        """One webhook."""
        return Webhook.of(await webhooks.get(app, webhook))

    @router.patch("/{webhook}")
    async def change_webhook(app: Id, webhook: Id, body: ChangeWebhook) -> Webhook:
        """Changes URL, events, or whether it is enabled."""
        changed = await webhooks.change(app, webhook, url=body.url, events=body.events, is_enabled=body.is_enabled)
        return Webhook.of(changed)

    @router.delete("/{webhook}", status_code=204)
    async def delete_webhook(app: Id, webhook: Id) -> Response:
        """Deletes it with all that waits for it."""
        await webhooks.delete(app, webhook)
        return Response(status_code=204)

    @router.post("/{webhook}/test", status_code=202)
    async def send_test(app: Id, webhook: Id) -> TestSent:
        """Sends the event `webhook.test`."""
        return TestSent(event_id=await webhooks.send_test(app, webhook))


def _add_deliveries(router: APIRouter, webhooks: Webhooks) -> None:
    @router.get("/{webhook}/deliveries")
    async def list_deliveries(
        app: Id,
        webhook: Id,
        state: DeliveryState | None = None,
        room: Annotated[str, Query(max_length=128)] = "",
        before: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> DeliveryList:
        """What was sent and what waits, newest first."""
        found = await webhooks.deliveries(app, webhook, state=state, room=room, before_id=before, limit=limit)
        return DeliveryList(
            deliveries=[Delivery.of(delivery) for delivery in found],
            next_before=found[-1].id if len(found) == limit else None,
        )

    @router.post("/{webhook}/replay", status_code=202)
    async def replay(app: Id, webhook: Id, body: Replay) -> Replayed:
        """Delivers stored events again, in each room in their order."""
        queued = await webhooks.replay(
            app,
            webhook,
            state=None if body.state == "any" else DeliveryState(body.state),
            event_ids=body.event_ids,
            from_ms=body.from_ms,
            to_ms=body.to_ms,
        )
        return Replayed(queued=queued)
