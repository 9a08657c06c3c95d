"""The extension module. Private: import from `mrtc_engine`.

Every command method returns a command id at once and never blocks; the result arrives as `Event.Reply` from
`poll_events`. `mrtc_engine.AsyncEngine` wraps this in coroutines. Strings for kinds are "audio" and "video"; codecs are
lower-case SDP names: opus, pcmu, pcma, g722, vp8, h264, vp9, av1.
"""

from typing import final

class EngineBusy(Exception):
    """The command queue is full; nothing was done. Retry later."""

class EngineClosed(Exception):
    """The engine was shut down, or the process was forked after it started."""

@final
class EngineConfig:
    """Settings of an engine.

    Args:
        advertised_ips: addresses put into ICE candidates, IPv4 or IPv6, at least one.
        bind_ip: address the sockets bind to.
        udp_port: UDP port of worker 0; worker n takes `udp_port + n`. 0: any free port.
        tcp_port: ICE-TCP port of worker 0, then as `udp_port`. 0: any free port; -1: no ICE-TCP.
        workers: worker threads; 0: one per core that the process may use.
        max_transports: refuse more with `limit_exceeded`.
        tick_us: longest time that a packet waits for its batch, microseconds.
        media_dscp: DSCP of everything that is sent, 0 to 63.
        pin_workers: bind each worker thread to a core.
        log_filter: `tracing` filter of the engine's own log, for example "info". The first engine of a process decides.
        log_format: "json" or "text"; lines go to stderr.

    Raises:
        ValueError: an address, port or name is malformed.
    """

    def __init__(
        self,
        *,
        advertised_ips: list[str],
        bind_ip: str = "0.0.0.0",  # noqa: S104
        udp_port: int = 0,
        tcp_port: int = 0,
        workers: int = 0,
        max_transports: int = 10_000,
        tick_us: int = 2_000,
        media_dscp: int = 0,
        pin_workers: bool = False,
        log_filter: str = "info",
        log_format: str = "json",
    ) -> None: ...

@final
class Subscription:
    """A track that a subscriber wants; see core's `command.rs`."""

    def __init__(
        self,
        *,
        track: str,
        kind: str,
        alternatives: list[str] = ...,
        formers: list[str] = ...,
        max_height: int = 0,
        max_fps: int = 0,
        is_paused: bool = False,
        priority: int = 128,
    ) -> None: ...

@final
class SourceFrame:
    """An encoded frame that a source sends. `data`: Annex B for H.264, a plain frame for VP8/VP9, a packet for Opus."""

    def __init__(self, *, pts_us: int, is_keyframe: bool, data: bytes) -> None: ...

@final
class SinkFrame:
    """One access unit of a sink, in decode order; fields as in core's `event.rs`."""

    @property
    def sink(self) -> str: ...
    @property
    def codec(self) -> str: ...
    @property
    def is_keyframe(self) -> bool: ...
    @property
    def is_discontinuous(self) -> bool: ...
    @property
    def rtp_time(self) -> int: ...
    @property
    def captured_at_us(self) -> int: ...
    @property
    def data(self) -> bytes: ...

@final
class Line:
    """One m-line of a transport after negotiation."""

    mid: str
    kind: str
    is_inbound: bool
    codecs: list[str]
    rids: list[str]

class Reply:
    """What a command gave; one of the classes below."""

    @final
    class Done(Reply): ...

    @final
    class Answer(Reply):
        answer: str
        lines: list[Line]

    @final
    class Track(Reply):
        track: str
        kind: str
        codec: str
        rids: list[str]

    @final
    class Slots(Reply):
        slots: list[tuple[str, str, str | None]]
        """(mid, kind, track or None)"""
        version: int
        """grows with each change of the slots"""
        unplaced: list[str]
        no_common_codec: list[str]
        missing: list[str]

    @final
    class TransportState(Reply):
        state: bytes
        """sealed; holds keys"""

    @final
    class Json(Reply):
        json: str

class Event:
    """One thing that happened; one of the classes below."""

    @final
    class Completed(Event):
        """A command succeeded."""

        command_id: int
        reply: Reply

    @final
    class Failed(Event):
        """A command was refused and had no effect. `code` is one of core's `error.rs`."""

        command_id: int
        code: str
        message: str

    @final
    class TransportConnected(Event):
        transport: str

    @final
    class TransportClosed(Event):
        transport: str
        reason: str
        """closed, ice_timeout, dtls_failed or peer_closed"""

    @final
    class TrackStarted(Event):
        track: str
        codec: str

    @final
    class TrackEnded(Event):
        track: str

    @final
    class LayersWanted(Event):
        track: str
        rids: list[str]
        """an empty one of a track in one encoding"""
        spatial_layers: int
        """of layers inside one encoding: so many from the lowest on are received; 0: all"""

    @final
    class ActiveSpeakers(Event):
        room: str
        worker: int
        """others may have more speakers of the room"""
        speakers: list[tuple[str, int]]
        """(track, level 0..127), loudest first"""

    @final
    class SlotsChanged(Event):
        transport: str
        slots: list[tuple[str, str, str | None]]
        """(mid, kind, track) of every slot, now that other people speak"""
        version: int
        """as in `Reply.Slots`"""

    @final
    class KeyframeRequested(Event):
        track: str

    @final
    class RelayUp(Event):
        relay: str

    @final
    class RelayLost(Event):
        relay: str

@final
class Engine:
    """Worker threads, their sockets and shards. Use from one process; call `begin_shutdown` then `finish_shutdown`."""

    def __init__(self, config: EngineConfig) -> None:
        """Binds the sockets and starts the workers. Raises OSError, ValueError."""

    def fileno(self) -> int:
        """An eventfd that becomes readable when events or frames wait. `poll_*` clear it."""

    def poll_events(self, limit: int = 1024) -> list[Event]: ...
    def poll_frames(self, limit: int = 1024) -> list[SinkFrame]: ...
    def create_transport(
        self,
        *,
        transport: str,
        room: str,
        offer: str,
        max_egress_bps: int = 0,
        max_ingress_bps: int = 0,
        max_track_bps: int = 0,
    ) -> int: ...
    def export_transport(self, *, transport: str, purpose: str, key: bytes) -> int: ...
    def complete_transport(self, *, transport: str, state: bytes, key: bytes) -> int: ...
    def import_transport(
        self,
        *,
        transport: str,
        room: str,
        offer: str,
        state: bytes,
        key: bytes,
        max_egress_bps: int = 0,
        max_ingress_bps: int = 0,
        max_track_bps: int = 0,
    ) -> int: ...
    def set_caps(
        self, *, transport: str, max_egress_bps: int = 0, max_ingress_bps: int = 0, max_track_bps: int = 0
    ) -> int: ...
    def negotiate(self, *, transport: str, offer: str) -> int: ...
    def close_transport(self, *, transport: str) -> int: ...
    def set_data_access(self, *, transport: str, identity: str, can_publish: bool) -> int: ...
    def send_data(
        self,
        *,
        room: str,
        sender: str,
        topic: str,
        payload: bytes,
        is_reliable: bool = True,
        is_text: bool = False,
        to: list[str] = [],
    ) -> int: ...
    def publish_track(self, *, track: str, transport: str, mid: str) -> int: ...
    def unpublish_track(self, *, track: str) -> int: ...
    def set_track_muted(self, *, track: str, is_muted: bool) -> int: ...
    def set_track_cap(self, *, track: str, max_bps: int) -> int: ...
    def set_subscriptions(self, *, transport: str, subscriptions: list[Subscription], audio_top_n: int = 0) -> int: ...
    def create_source(self, *, track: str, room: str, codec: str) -> int: ...
    def push_frames(self, *, track: str, frames: list[SourceFrame], late_us: int = 0) -> int: ...
    def create_sink(self, *, sink: str, track: str) -> int: ...
    def close_sink(self, *, sink: str) -> int: ...
    def relay_address(self, relay: str) -> str:
        """The `ip:port` at which this engine will serve a relay of this id: its first advertised address."""

    def open_relay(
        self, *, relay: str, remote: str, tx_key: bytes, tx_salt: bytes, rx_key: bytes, rx_salt: bytes
    ) -> int: ...
    def close_relay(self, *, relay: str) -> int: ...
    def export_track(self, *, relay: str, track: str, handle: int) -> int: ...
    def export_data(self, *, relay: str, room: str, handle: int) -> int: ...
    def import_data(self, *, relay: str, room: str, handle: int) -> int: ...
    def stop_data(self, *, relay: str, room: str) -> int: ...
    def unexport_track(self, *, relay: str, track: str) -> int: ...
    def import_track(self, *, relay: str, track: str, room: str, handle: int, codec: str, rids: list[str]) -> int: ...
    def move_import(self, *, relay: str, track: str, handle: int) -> int: ...
    def stats(self, *, transports: list[str] = ...) -> int: ...
    def dump_room(self, *, room: str) -> int: ...
    def start_capture(
        self,
        *,
        path: str,
        room: str = "",
        transport: str = "",
        is_headers_only: bool,
        max_bytes: int,
        max_duration_ms: int,
    ) -> int:
        """Begins to write packets in the clear to a new file. Raises BlockingIOError while another one is under way."""

    def stop_capture(self) -> tuple[int, int, int, bool] | None:
        """Ends it and waits for the disk: packets, bytes, copies dropped, is it running. None: there never was one."""

    def capture_figures(self) -> tuple[int, int, int, bool] | None:
        """The same of the last capture, without ending it."""

    def counters(self) -> list[dict[str, int]]:
        """Per worker: monotonic counters since start (packets, bytes, drops by reason, ticks, busy microseconds)."""

    def local_addresses(self) -> list[tuple[str, str]]:
        """(`udp` or `tcp`, `ip:port`) of every socket."""

    def begin_shutdown(self) -> None:
        """Closes transports (DTLS close_notify) and stops taking commands."""

    def finish_shutdown(self) -> None:
        """Joins the workers. Blocks for at most a second."""
