"""Every setting of the player, with default, unit and meaning."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from mrtc_common.job_node import JobNodeSettings
from mrtc_common.settings import setting


class VodSettings(JobNodeSettings):
    """Settings of rtcvod."""

    service: ClassVar[str] = "rtcvod"

    grpc_port: int = setting(7400, "TCP port of the gRPC server; 0: any.", ge=0, le=65535)
    http_port: int = setting(7401, "TCP port of health and metrics; 0: any.", ge=0, le=65535)
    udp_port: int = setting(7402, "UDP port of the relays; 0: any.", ge=0, le=65535)
    relay_max_edges: int = setting(
        8,
        "Nodes to which each node sends a track that begins here; further ones take it from those. 0: all from here.",
        ge=0,
        le=1000,
    )
    storage_root: Path = setting(Path("var/files"), "Folder of the media files, shared with signaling.")
    video_codec: str = setting(
        "vp8", "Codec into which pictures are transcoded when they cannot be sent as they are.", pattern="^(vp8|h264)$"
    )
    max_height: int = setting(720, "Largest height of transcoded pictures.", unit="px", ge=90, le=2160)
    max_fps: int = setting(30, "Largest frame rate of transcoded pictures.", unit="1/s", ge=5, le=60)
    video_bitrate_bps: int = setting(
        2_000_000, "Bitrate of transcoded pictures at the largest height.", unit="bit/s", ge=100_000, le=20_000_000
    )
    pass_bitrate_bps: int = setting(
        8_000_000,
        "Files of a larger bitrate are transcoded, though their codec would pass.",
        unit="bit/s",
        ge=100_000,
        le=100_000_000,
    )
    memory_limit_mib: int = setting(
        2048, "Memory of a playing process; files are foreign, one must not take the machine down.", unit="MiB", ge=256
    )
