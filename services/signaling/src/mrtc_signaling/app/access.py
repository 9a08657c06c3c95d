"""Verifies tokens against the keys of their app, and what they permit."""

from __future__ import annotations

from dataclasses import dataclass

from mrtc_common import auth
from mrtc_common.errors import BadRequestError, PermissionDeniedError, UnauthenticatedError

from mrtc_signaling.ports import App, AppRegistry


@dataclass(frozen=True, slots=True)
class Access:
    """A verified token and its app."""

    token: auth.AccessToken
    app: App

    def room(self, wanted: str) -> str:
        """The room that is meant and permitted. Raises PermissionDeniedError, BadRequestError."""
        room = wanted or self.token.room
        if not room:
            raise BadRequestError("neither the request nor the token names a room")
        if self.token.room and self.token.room != room:
            raise PermissionDeniedError("the token is for another room")
        return room

    def check_admin(self, app_id: str, room: str = "") -> None:
        """Raises PermissionDeniedError if the token may not administer this app, or this room of it."""
        if app_id != self.app.id:
            raise PermissionDeniedError("the token is of another app")
        if self.token.api and (not self.token.room or self.token.room == room):
            return
        if not room or not self.token.grants.admin:
            raise PermissionDeniedError("this needs an API token, or for one room a token with the grant `admin`")
        self.room(room)


class Authenticator:
    """Verifies tokens."""

    def __init__(self, apps: AppRegistry) -> None:
        self._apps = apps

    async def verify(self, text: str) -> Access:
        """Raises UnauthenticatedError, TokenExpiredError, BadRequestError, UnavailableError."""
        if not text:
            raise UnauthenticatedError("an access token is missing")
        claimed = auth.peek_token(text)
        secret = await self._apps.key_secret(claimed.app_id, claimed.key_id)
        if secret is None:
            # The same words for an unknown app, an unknown key and a revoked one: nothing to be learnt here.
            raise UnauthenticatedError("the token's app or key is not known")
        token = auth.verify_token(text, secret)
        app = await self._apps.app(token.app_id)
        if app is None:
            raise UnauthenticatedError("the token's app or key is not known")
        return Access(token, app)
