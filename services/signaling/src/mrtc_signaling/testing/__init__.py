"""Help for tests: a media node and a master in this process, and a client of the protocol."""

from .client import Client, ClientClosedError
from .media_node import FakeMaster, FakeNode, offer
from .receiver import WebhookReceiver

__all__ = ["Client", "ClientClosedError", "FakeMaster", "FakeNode", "WebhookReceiver", "offer"]
