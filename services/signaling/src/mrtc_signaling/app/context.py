"""What every use case is given: the ports, the clock, the figures and the options."""

from __future__ import annotations

from dataclasses import dataclass, field

from mrtc_common.clock import Clock

from mrtc_signaling.core.caps import Caps
from mrtc_signaling.core.ice_servers import IceServers
from mrtc_signaling.core.roster import RosterOptions
from mrtc_signaling.metrics import SignalingMetrics
from mrtc_signaling.ports import AppRegistry, Bus, Jobs, MediaNodes, MessageLog, RoomStore, SessionStore

from .room_hub import RoomHubs


@dataclass(frozen=True, slots=True)
class Options:
    """What the settings decide for the use cases."""

    grace_s: float = 30.0
    heartbeat_interval_s: float = 10.0
    empty_room_timeout_s: float = 60.0
    # Placement attempts: the first node and two others.
    max_placements: int = 3
    ice_servers: IceServers = field(default_factory=IceServers)
    region: str = ""
    # How long the answer to a join waits for the slots' first mapping before it goes without.
    first_slots_timeout_s: float = 0.5
    # A client that was told of lost media and does not negotiate anew for so long is ended.
    media_loss_timeout_s: float = 30.0
    # A publisher that was asked for a further codec and does not send it for so long cannot.
    codec_timeout_s: float = 8.0
    whep_wait_s: float = 3.0
    # A WHIP or WHEP client that another node calls comes over within this time, or begins anew; 0: it is not called.
    carry_timeout_s: float = 1.5
    max_sessions: int = 20_000
    # Of participants whose app sets none.
    caps: Caps = field(default_factory=Caps)
    roster: RosterOptions = field(default_factory=RosterOptions)


@dataclass(slots=True)
class Context:
    """The ports and what else the use cases share."""

    instance_id: str
    clock: Clock
    options: Options
    rooms: RoomStore
    sessions: SessionStore
    messages: MessageLog
    bus: Bus
    nodes: MediaNodes
    jobs: Jobs
    apps: AppRegistry
    metrics: SignalingMetrics
    hubs: RoomHubs = field(init=False)

    def __post_init__(self) -> None:
        self.hubs = RoomHubs(self.rooms, self.messages, self.bus, self.clock, self.options.roster)
