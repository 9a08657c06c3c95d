"""Every setting of the recorder, with default, unit and meaning."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from mrtc_common.job_node import JobNodeSettings
from mrtc_common.settings import setting


class RecorderSettings(JobNodeSettings):
    """Settings of rtcrecorder."""

    service: ClassVar[str] = "rtcrecorder"

    grpc_port: int = setting(7300, "TCP port of the gRPC server; 0: any.", ge=0, le=65535)
    http_port: int = setting(7301, "TCP port of health and metrics; 0: any.", ge=0, le=65535)
    udp_port: int = setting(7302, "UDP port of the relays; 0: any.", ge=0, le=65535)
    storage_root: Path = setting(Path("var/files"), "Folder of the recordings.")
    room_wait_s: float = setting(
        300.0, "How long a recording waits for a room that does not exist yet.", unit="s", ge=0, le=86400
    )
    empty_timeout_s: float = setting(
        30.0, "A recording ends when its room has been empty for so long.", unit="s", ge=0, le=86400
    )
    mix_delay_ms: int = setting(
        400,
        "How long at most the mixer waits for media that is late: what comes later is not in the mixed file.",
        unit="ms",
        ge=100,
        le=5000,
    )
    x264_preset: str = setting(
        "veryfast",
        "Effort of the encoder of mixed recordings.",
        pattern="^(ultrafast|superfast|veryfast|faster|fast|medium)$",
    )
    x264_crf: int = setting(25, "Quality of mixed recordings; less is better and larger.", ge=10, le=40)
