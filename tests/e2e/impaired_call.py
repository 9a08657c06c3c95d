"""A call of two real browsers through the impairment proxy: alice publishes, bob receives and is observed."""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser

from tests.e2e.caller import CLEAN, Caller
from tests.e2e.speech import RATE, Samples, Score, resampled, samples_of, score, spoken
from tests.support.impair import Conditions, Impair
from tests.support.suite import RunningSuite

NUMBER = 77
FPS = 20
# A picture that lasts this much longer than it should is a freeze, as in the browser's own figure (freezeCount).
FREEZE_MS = 150
# 640x360 that needs 1.6 Mbit/s, and lower layers that a bad link carries: what a 720p camera has, for less CPU.
LAYERS = [
    {"rid": "q", "scaleDownBy": 4, "maxBitrateBps": 300_000},
    {"rid": "h", "scaleDownBy": 2, "maxBitrateBps": 1_100_000},
    {"rid": "f", "scaleDownBy": 1, "maxBitrateBps": 4_500_000},
]


@dataclass(frozen=True)
class Seen:
    """What bob received for a time.

    Attributes:
        seconds: how long.
        fps: frames shown per second.
        freeze_share: share of the time in which the picture stood still too long, 0 to 1.
        freezes: how often.
        longest_freeze_ms: the longest time between two frames.
        widths: (time in seconds, width) whenever the width changed.
        kbps: of the picture, retransmissions included.
        plis, nacks: feedback that bob's browser sent for the picture.
        audio_loss: share of the sound that the browser had to make up, 0 to 1.
        busy: share of the time in which something on this machine waited for a CPU, 0 to 1.
        sound: PESQ and STOI of what was heard; None if nothing was said.
    """

    seconds: float
    fps: float
    freeze_share: float
    freezes: int
    longest_freeze_ms: float
    widths: list[tuple[float, int]]
    kbps: float
    plis: int
    nacks: int
    audio_loss: float
    busy: float
    sound: Score | None = None
    reports: list[dict[str, Any]] = field(default_factory=list, repr=False, compare=False)

    def figures(self) -> dict[str, Any]:
        """For a report: all but the raw reports."""
        return {key: value for key, value in asdict(self).items() if key != "reports"}


class ImpairedCall:
    """Alice's and bob's pages; each reaches the media node over a leg of its own, named as they are."""

    def __init__(self, alice: Caller, bob: Caller, impair: Impair, pages_url: str, path: Conditions) -> None:
        self.alice, self.bob, self.impair = alice, bob, impair
        self._wav = spoken()
        self.sent: Samples = samples_of(self._wav)
        for name, caller in (("alice", alice), ("bob", bob)):
            caller.go_through(impair, name, path)
            caller.page.add_script_tag(url=f"{pages_url}/measure.js", type="module")
            caller.page.wait_for_function("window.call.observe !== undefined")

    def start(self, room: str, texture: float = 1.0) -> None:
        """Both join; alice publishes picture and (still silent) voice; bob sees her.

        With `texture` 1 the highest layer needs 1.6 Mbit/s, with less about that share of it.
        """
        self.alice.join(room, "alice")
        self.alice.publish(NUMBER, fps=FPS, texture=texture, simulcast=LAYERS)
        self.alice.call("publishVoice", base64.b64encode(self._wav).decode())
        self.bob.join(room, "bob")
        self.bob.sees("alice", NUMBER)
        self.bob.event("trackSubscribed", "alice", "microphone")
        assert self.impair.passed("alice") > 0, "alice's media passes the proxy"
        assert self.impair.passed("bob") > 0, "bob's media passes the proxy"

    def settle(self, width: int = 640, timeout_s: float = 20.0) -> bool:
        """Waits until bob sees the highest layer, at most for a time; says whether he does."""
        deadline = time.monotonic() + timeout_s
        while self.bob.see("alice").get("width", 0) < width:
            if time.monotonic() > deadline:
                return False
            self.bob.page.wait_for_timeout(100)
        return True

    @contextmanager
    def observed(self, *, says: bool = False) -> Iterator[list[Seen]]:
        """Observes bob inside the block; the list holds the result afterwards. With `says`, alice speaks meanwhile."""
        result: list[Seen] = []
        if says:
            self.bob.call("record", "alice")
            self.alice.call("speak")
        waited, began = cpu_wait_s(), time.monotonic()
        self.bob.call("observe", "alice")
        yield result
        observed = self.bob.call("observed")
        busy = (cpu_wait_s() - waited) / (time.monotonic() - began)
        sound = self._score() if says else None
        result.append(summary(observed["shown"], observed["reports"], busy, sound))

    def watch(self, seconds: float, *, says: bool = False) -> Seen:
        """Observes bob for a time."""
        with self.observed(says=says) as result:
            # Not time.sleep: the page may ask for the proxy's address meanwhile.
            self.bob.page.wait_for_timeout(seconds * 1000)
        return result[0]

    @property
    def speech_s(self) -> float:
        """How long alice speaks."""
        return len(self.sent) / RATE

    def _score(self) -> Score:
        heard = np.frombuffer(base64.b64decode(self.bob.call("recorded")), np.int16) / 32_768
        return score(self.sent, resampled(heard, 48_000))


def cpu_wait_s() -> float:
    """For how long since its start something on this machine has waited for a CPU (of its pressure figures)."""
    try:
        some = Path("/proc/pressure/cpu").read_text().splitlines()[0]
    except OSError:
        return 0.0
    return int(some.rpartition("total=")[2]) / 1e6


def summary(shown: list[float], reports: list[dict[str, Any]], busy: float = 0.0, sound: Score | None = None) -> Seen:
    """Figures from the times of the frames shown and the browser's reports."""
    first, last = reports[0], reports[-1]
    end_ms = last["at"]
    gaps = [b - a for a, b in itertools.pairwise([0.0, *(at for at in shown if at < end_ms), end_ms])]
    freezes = [gap for gap in gaps if gap > 1000 / FPS + FREEZE_MS]
    video, audio = last.get("video"), last.get("audio")

    def grown(kind: str, key: str) -> float:
        return float((last.get(kind) or {}).get(key, 0) - (first.get(kind) or {}).get(key, 0))

    widths: list[tuple[float, int]] = []
    for report in reports:
        width = (report.get("video") or {}).get("frameWidth")
        if width and (not widths or widths[-1][1] != width):
            widths.append((round(report["at"] / 1000, 1), width))
    return Seen(
        seconds=round(end_ms / 1000, 1),
        fps=round(len(shown) / (end_ms / 1000), 1),
        freeze_share=round(sum(freezes) / end_ms, 4),
        freezes=len(freezes),
        longest_freeze_ms=round(max(gaps)),
        widths=widths,
        kbps=round(grown("video", "bytesReceived") * 8 / end_ms) if video else 0.0,
        plis=round(grown("video", "pliCount")),
        nacks=round(grown("video", "nackCount")),
        audio_loss=round(grown("audio", "concealedSamples") / max(1.0, grown("audio", "totalSamplesReceived")), 4)
        if audio
        else 1.0,
        busy=round(busy, 2),
        sound=sound,
        reports=reports,
    )


@contextmanager
def impaired_call(
    browsers: list[Browser], pages_url: str, suite: RunningSuite, impair: Impair, path: Conditions = CLEAN
) -> Iterator[ImpairedCall]:
    """Two pages, each behind such a path, closed at the end of the block."""
    callers = [Caller(browser, pages_url, suite) for browser in browsers[:2]]
    try:
        yield ImpairedCall(callers[0], callers[1], impair, pages_url, path)
    finally:
        for caller in callers:
            caller.close()
