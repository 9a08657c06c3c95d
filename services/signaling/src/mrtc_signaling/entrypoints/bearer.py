"""Takes access tokens out of HTTP requests."""

from __future__ import annotations

from fastapi import Request
from mrtc_common.errors import UnauthenticatedError

from mrtc_signaling.app.access import Access, Authenticator


def bearer_token(request: Request, *, in_query: bool) -> tuple[str, bool]:
    """The token, and whether it came in the query (`access_token`, RFC 6750 section 2.3).

    In the query it may stand where players cannot set headers only: URLs end up in logs and histories.
    """
    header = request.headers.get("authorization", "")
    if header:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthenticatedError("the Authorization header must be `Bearer <token>`")
        return token.strip(), False
    return (request.query_params.get("access_token", ""), True) if in_query else ("", False)


async def authenticate(request: Request, authenticator: Authenticator, *, in_query: bool = False) -> Access:
    """Verifies the request's token. Raises UnauthenticatedError, TokenExpiredError."""
    token, _ = bearer_token(request, in_query=in_query)
    return await authenticator.verify(token)
