"""Media for the recorder's tests, made by ffmpeg once per session, and what reads recordings back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
from mrtc_rtcrecorder.core.frames import CLOCK_RATES, Frame

EPOCH_US = 1_700_000_000_000_000

_VIDEO_ARGS = {
    "h264": ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "30"],
    "vp8": ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-g", "30", "-auto-alt-ref", "0"],
    "vp9": ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "30", "-auto-alt-ref", "0"],
    "av1": ["-c:v", "libaom-av1", "-usage", "realtime", "-cpu-used", "8", "-g", "30", "-lag-in-frames", "0"],
}
_FORMATS = {"h264": "h264", "vp8": "ivf", "vp9": "ivf", "av1": "ivf"}

MakeFrames = Callable[..., list[Frame]]


@pytest.fixture(scope="session")
def make_frames(tmp_path_factory: pytest.TempPathFactory) -> MakeFrames:
    """Gives frames of a test pattern (video) or a tone (audio) as a sink would deliver them."""
    folder = tmp_path_factory.mktemp("frames")
    made: dict[tuple[object, ...], list[Frame]] = {}

    def make(
        codec: str, seconds: float = 3.0, *, size: str = "320x180", rate: int = 30, start_us: int = EPOCH_US
    ) -> list[Frame]:
        key = (codec, seconds, size, rate, start_us)
        if key not in made:
            maker = _video if codec in _VIDEO_ARGS else _audio
            made[key] = maker(folder, codec, seconds, size, rate, start_us)
        return list(made[key])

    return make


def _video(folder: Path, codec: str, seconds: float, size: str, rate: int, start_us: int) -> list[Frame]:
    path = folder / f"{codec}-{seconds}-{size}-{rate}.{_FORMATS[codec]}"
    source = f"testsrc2=size={size}:rate={rate}"
    _ffmpeg("-f", "lavfi", "-i", source, "-t", str(seconds), "-pix_fmt", "yuv420p", *_VIDEO_ARGS[codec], str(path))
    frames = []
    with av.open(str(path)) as container:
        packets = (packet for packet in container.demux(video=0) if packet.size)
        for index, packet in enumerate(packets):
            frames.append(
                Frame(
                    codec,
                    packet.is_keyframe,
                    False,
                    1_000_000 + index * 90_000 // rate,
                    start_us + index * 1_000_000 // rate,
                    bytes(packet),
                )
            )
    return frames


def _audio(folder: Path, codec: str, seconds: float, _size: str, _rate: int, start_us: int) -> list[Frame]:
    encoder, rate, layout = {
        "opus": ("libopus", 48_000, "stereo"),
        "pcmu": ("pcm_mulaw", 8_000, "mono"),
        "pcma": ("pcm_alaw", 8_000, "mono"),
        "g722": ("adpcm_g722", 16_000, "mono"),
    }[codec]
    path = folder / f"{codec}-{seconds}.mka"
    channels = "2" if layout == "stereo" else "1"
    tone = f"sine=frequency=440:sample_rate={rate}"
    _ffmpeg(
        "-f", "lavfi", "-i", tone, "-t", str(seconds), "-ac", channels, "-ar", str(rate), "-c:a", encoder, str(path)
    )
    clock = CLOCK_RATES[codec]
    frames: list[Frame] = []
    elapsed = 0
    with av.open(str(path)) as container:
        for packet in container.demux(audio=0):
            if not packet.size:
                continue
            data = bytes(packet)
            frames.append(Frame(codec, True, False, 777 + elapsed, start_us + elapsed * 1_000_000 // clock, data))
            elapsed += {"opus": 960, "g722": len(data)}.get(codec, len(data))
    return frames


def _ffmpeg(*args: str) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *args], check=True, timeout=60)


@pytest.fixture(scope="session")
def probe() -> Callable[[Path], dict[str, Any]]:
    """What ffprobe says of a file, with the packets of every stream counted."""

    def run(path: Path) -> dict[str, Any]:
        shown = "format:stream"
        args = ["ffprobe", "-v", "error", "-count_packets", "-show_entries", shown, "-of", "json", str(path)]
        done = subprocess.run(args, check=True, capture_output=True, timeout=60)
        assert not done.stderr, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    return run


@pytest.fixture(scope="session")
def assert_decodes() -> Callable[[Path], None]:
    """Decodes a whole file and fails on the first complaint."""

    def run(path: Path) -> None:
        args = [
            "ffmpeg",
            "-v",
            "error",
            "-xerror",
            "-i",
            str(path),
            "-fps_mode",
            "passthrough",
            "-enc_time_base",
            "-1",
            "-f",
            "null",
            "-",
        ]
        done = subprocess.run(args, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert not done.stderr, done.stderr

    return run
