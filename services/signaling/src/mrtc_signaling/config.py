"""Every setting of signaling."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import ClassVar, Self

from mrtc_common.settings import Settings, setting
from pydantic import SecretStr, field_validator, model_validator


class SignalingSettings(Settings):
    """The settings; deploy/config/signaling.yaml documents them to operators."""

    service: ClassVar[str] = "signaling"

    http_port: int = setting(8080, "Port of the HTTP server; 0: any free one.", ge=0, le=65535)
    master_address: str = setting("127.0.0.1:7000", "`host:port` of the master's gRPC server.", pattern=r"^.+:\d+$")
    database_url: str = setting(
        "sqlite+aiosqlite:///var/mrtc.sqlite3",
        "Database of apps and keys: `sqlite+aiosqlite:///PATH` or `postgresql+asyncpg://…`. "
        "All signaling instances share one.",
    )
    secrets_key: SecretStr = setting(SecretStr(""), "Encrypts app keys at rest. At least 16 characters; keep it safe.")
    storage_root: Path = setting(Path("var/files"), "Directory of recordings and media, shared with recorder and vod.")
    static_dir: Path | None = setting(None, "Directory of the page served at `/`; unset: none.")
    demo: bool = setting(False, "True: `/demo/token` gives tokens of the app `demo` to everybody. Never in production.")
    ice_urls: list[str] = setting([], "STUN and TURN URLs that clients are given.")
    ice_username: str = setting("", "TURN user that clients are given.")
    ice_credential: SecretStr = setting(SecretStr(""), "TURN credential that clients are given.")
    turn_urls: list[str] = setting(
        [],
        "`turn:` and `turns:` URLs of TURN servers that share `turn_secret`; each client gets its own credentials.",
    )
    turn_secret: SecretStr = setting(SecretStr(""), "Secret shared with the TURN servers (coturn: static-auth-secret).")
    turn_ttl_s: int = setting(86_400, "How long TURN credentials are good.", unit="s", ge=60, le=30 * 86_400)
    cors_origins: list[str] = setting(["*"], "Origins of pages that may call the HTTP API; `*`: all.")
    heartbeat_interval_s: float = setting(
        10.0,
        "A client that has nothing to say pings this often; it is lost after two and a half.",
        unit="s",
        ge=1,
        le=120,
    )
    first_frame_timeout_s: float = setting(
        10.0, "A connection must join or resume within this time.", unit="s", ge=1, le=60
    )
    empty_room_timeout_s: float = setting(60.0, "An empty room is closed after this time.", unit="s", ge=1, le=86_400)
    whep_wait_s: float = setting(
        3.0, "A WHEP player waits so long for a publication, then it is told to try again.", unit="s", ge=0, le=20
    )
    carry_timeout_s: float = setting(
        1.5,
        "A WHIP or WHEP client that is to move is called by the other node; if it does not come over within this time "
        "its session ends, and it begins anew. 0: it is not called.",
        unit="s",
        ge=0,
        le=10,
    )
    large_room_participants: int = setting(
        20,
        "In rooms with more people, those who only listen are told of in batches, up to a second later.",
        ge=0,
    )
    max_listed_listeners: int = setting(
        500,
        "In such rooms so many of those who only listen are listed; of the rest clients are told the number. "
        "Who publishes is always listed.",
        ge=0,
    )
    max_connections: int = setting(20_000, "WebSocket connections at once.", ge=1)
    max_sessions: int = setting(20_000, "Sessions at once.", ge=1)
    max_egress_bps_per_participant: int = setting(
        0,
        "What a participant is sent at most, where its app sets nothing; 0: no cap.",
        unit="bit/s",
        ge=0,
        le=2**32 - 1,
    )
    max_ingress_bps_per_participant: int = setting(
        0, "What a participant sends at most, where its app sets nothing; 0: no cap.", unit="bit/s", ge=0, le=2**32 - 1
    )
    max_track_bps: int = setting(
        0, "What a track sends at most, where its app sets nothing; 0: no cap.", unit="bit/s", ge=0, le=2**32 - 1
    )
    max_requests_per_s: float = setting(50.0, "Requests per second of one connection, on average.", ge=1)
    max_request_burst: int = setting(200, "Requests of one connection at once.", ge=1)
    webhook_networks: list[IPv4Network | IPv6Network] = setting(
        [], "Private networks where receivers of webhooks may be, as `10.1.0.0/16`; others are never connected to."
    )
    webhook_retry_s: float = setting(
        86_400.0, "A webhook that is not taken is tried for this time.", unit="s", ge=1, le=7 * 86_400
    )
    webhook_keep_s: float = setting(
        7 * 86_400.0, "Webhooks that were delivered or given up can be replayed for this time.", unit="s", ge=2 * 86_400
    )
    max_upload_bytes: int = setting(2 * 1024**3, "Largest media file that can be uploaded.", unit="bytes", ge=1)

    @field_validator("secrets_key")
    @classmethod
    def _key_is_long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < 16:
            raise ValueError("must be set, at least 16 characters")
        return value

    @field_validator("turn_urls")
    @classmethod
    def _turn_urls_are_turn(cls, value: list[str]) -> list[str]:
        for url in value:
            if not url.startswith(("turn:", "turns:")):
                raise ValueError(f"{url!r} is not a `turn:` or `turns:` URL")
        return value

    @model_validator(mode="after")
    def _turn_has_a_secret(self) -> Self:
        if self.turn_urls and not self.turn_secret.get_secret_value():
            raise ValueError("turn_secret must be set where turn_urls are")
        return self
