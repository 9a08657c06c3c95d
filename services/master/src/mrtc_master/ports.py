"""What the duties need of the world."""

from __future__ import annotations

from typing import Protocol

from .core.reaper import Reap


class RoomStore(Protocol):
    """Removes keys of the room state."""

    async def reap(self, reap: Reap) -> bool:
        """Removes, if it is still due by the store itself; False if it was not. Raises UnavailableError."""
        ...


class SessionStore(Protocol):
    """Keeps sessions alive in place of signaling."""

    async def keep(self, session_id: str) -> None:
        """Writes a session's record as it is, so that it does not expire; not if somebody changes it meanwhile."""
        ...


class Serving(Protocol):
    """Whether signaling is there."""

    @property
    def has_heard(self) -> bool:
        """True once an instance was heard."""
        ...

    @property
    def is_served(self) -> bool:
        """True while an instance was heard lately."""
        ...


class Notifier(Protocol):
    """Tells sessions and services."""

    async def node_died(self, node_id: str) -> None:
        """Publishes `NodeDied`."""
        ...

    async def media_node_lost(self, session_id: str, node_id: str) -> None:
        """Orders a session's server to have its media negotiated anew."""
        ...


class Lease(Protocol):
    """Who does the duties that must be done once."""

    @property
    def is_held(self) -> bool:
        """True while it is certain that nobody else holds it."""
        ...
