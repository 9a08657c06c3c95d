"""The figures of this service."""

from __future__ import annotations

from mrtc_common.metrics import Metrics


class SignalingMetrics:
    """Every metric of signaling; docs/metrics.md explains them."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        self.metrics = metrics or Metrics("signaling")
        make = self.metrics
        self.connections = make.gauge("connections", "Open WebSocket connections")
        self.sessions = make.gauge("sessions", "Sessions served by this instance", ["kind"])
        self.rooms = make.gauge("rooms", "Rooms followed by this instance")
        self.joins = make.counter("joins_total", "Joins by result code", ["door", "code"])
        self.join_seconds = make.histogram("join_seconds", "Time from join request to its reply", ["door"])
        self.resumes = make.counter("resumes_total", "Resumes by result code", ["code"])
        self.requests = make.counter("requests_total", "Client requests by kind and result code", ["kind", "code"])
        self.pushes = make.counter("pushes_total", "Pushes sent to clients", ["kind"])
        self.slow_clients = make.counter("slow_clients_total", "Connections closed since the client read too slowly")
        self.sessions_ended = make.counter("sessions_ended_total", "Sessions ended by reason", ["reason"])
        self.media_lost = make.counter("media_lost_total", "Transports that were lost", ["reason"])
        self.carries = make.counter(
            "carries_total", "Transports that were to go to another node, by result", ["result"]
        )
        self.checkpoints = make.gauge("checkpoints_count", "Sessions that would go on if their media node died")
        self.messages = make.counter("messages_total", "Text messages stored")
        self.subscription_seconds = make.histogram("set_subscriptions_seconds", "Time of one SetSubscriptions call")
        self.app_events = make.counter("app_events_total", "Events for apps that were stored for their webhooks")
        self.webhook_deliveries = make.counter("webhook_deliveries_total", "Webhook requests by result", ["result"])
        self.webhooks_pending = make.gauge("webhooks_pending", "Webhook deliveries that wait")
        self.http_requests = make.counter(
            "http_requests_total", "HTTP requests by route and status", ["route", "status"]
        )
