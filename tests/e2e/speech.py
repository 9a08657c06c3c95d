"""Speech for tests, and how much of it is left after a network: PESQ and STOI against what was sent."""

from __future__ import annotations

import io
import subprocess
import wave
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pesq import pesq
from pystoi import stoi
from scipy.signal import correlate, resample_poly

RATE = 16_000
"""Hz of everything that is scored: ITU-T P.862.2 (wideband PESQ) is defined for it alone."""

# Harvard sentences (IEEE 297-1969), lists 1 and 2: balanced in sounds as English is.
SENTENCES = (
    "The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background. "
    "It's easy to tell the depth of a well. These days a chicken leg is a rare dish. "
    "Rice is often served in round bowls."
)

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """How good sound is.

    Attributes:
        pesq: MOS-LQO of ITU-T P.862.2, 1 (bad) to 4.64 (the same).
        stoi: intelligibility, 0 to 1.
        delay_ms: by which what was heard lies behind the start of the recording.
    """

    pesq: float
    stoi: float
    delay_ms: float


def spoken(text: str = SENTENCES) -> bytes:
    """A WAV file of a text, by espeak-ng."""
    command = ["espeak-ng", "-v", "en-us", "-s", "150", "--stdout", text]
    return _repaired(subprocess.run(command, check=True, capture_output=True).stdout)


def _repaired(streamed: bytes) -> bytes:
    """The file with true lengths in its header: espeak-ng cannot know them when it writes to a pipe."""
    with wave.open(io.BytesIO(streamed)) as source:
        parameters, frames = source.getparams(), source.readframes(source.getnframes())
    out = io.BytesIO()
    with wave.open(out, "wb") as target:
        target.setparams(parameters._replace(nframes=0))
        target.writeframes(frames)
    return out.getvalue()


def samples_of(wav: bytes) -> Samples:
    """A mono file at `RATE`, -1 to 1."""
    with wave.open(io.BytesIO(wav)) as source:
        rate, frames = source.getframerate(), source.readframes(source.getnframes())
    return resampled(np.frombuffer(frames, np.int16) / 32_768, rate)


def resampled(samples: Any, rate: int) -> Samples:
    """At `RATE` instead of `rate`."""
    result: Samples = resample_poly(np.asarray(samples, np.float64), RATE, rate)
    return result


def score(sent: Samples, heard: Samples) -> Score:
    """Compares what was heard with what was sent; `heard` begins no later than the speech in it."""
    delay = max(0, int(np.argmax(correlate(heard, sent, "valid")))) if len(heard) > len(sent) else 0
    same = heard[delay : delay + len(sent)]
    sent = sent[: len(same)]
    return Score(
        pesq=round(float(pesq(RATE, sent, same, "wb")), 2),
        stoi=round(float(stoi(sent, same, RATE)), 3),
        delay_ms=delay * 1000 / RATE,
    )
