"""Media files for the player's tests, made by ffmpeg once per session."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

FILES: dict[str, list[str]] = {
    "pass.mp4": ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "30", "-c:a", "aac"],
    "bframes.mkv": ["-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-c:a", "libmp3lame"],
    "long-gop.mp4": ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "600", "-c:a", "aac"],
    "yuv444.mp4": ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv444p", "-c:a", "aac"],
    "vp8.webm": ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-g", "30", "-c:a", "libopus"],
    "vp9.webm": ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "30", "-c:a", "libopus"],
    "music.mp3": ["-vn", "-c:a", "libmp3lame"],
    "music.ogg": ["-vn", "-c:a", "libopus"],
    "tone.wav": ["-vn", "-c:a", "pcm_s16le", "-ar", "8000", "-ac", "1"],
    "flash.mp4": ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "50", "-c:a", "aac"],
    "flash.webm": ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-g", "50", "-c:a", "libopus"],
    "silent.mp4": ["-an", "-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "30"],
}

_PATTERN, _TONE = "testsrc2=size=320x180:rate=30", "sine=frequency=440:sample_rate=44100"
# White and loud in the first fifth of every second.
_FLASH = "color=black:size=64x64:rate=50,drawbox=color=white:t=fill:enable='lt(mod(t,1),0.2)'"
_BEEP = "sine=frequency=1000:sample_rate=48000,volume='if(lt(mod(t,1),0.2),1,0)':eval=frame"

MediaFile = Callable[[str], Path]


@pytest.fixture(scope="session")
def media_file(tmp_path_factory: pytest.TempPathFactory) -> MediaFile:
    """Gives a file of six seconds of a test pattern and a tone of 440 Hz."""
    folder = tmp_path_factory.mktemp("media")

    def make(name: str, seconds: float = 6.0) -> Path:
        path = folder / f"{seconds}-{name}"
        if not path.exists():
            options = FILES[name]
            is_flash = name.startswith("flash")
            picture = [] if "-vn" in options else ["-f", "lavfi", "-i", _FLASH if is_flash else _PATTERN]
            sound = [] if "-an" in options else ["-f", "lavfi", "-i", _BEEP if is_flash else _TONE]
            pixels = [] if "-pix_fmt" in options or "-vn" in options else ["-pix_fmt", "yuv420p"]
            command = [
                "ffmpeg",
                "-v",
                "error",
                "-y",
                *picture,
                *sound,
                "-t",
                str(seconds),
                *pixels,
                *options,
                str(path),
            ]
            subprocess.run(command, check=True, timeout=60)
        return path

    return make
