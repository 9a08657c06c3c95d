"""Runs the mixing process: messages on standard input, progress on standard output. Started by the recorder only.

Its time is that of the messages, not of a clock: a process that was slow to start, or falls behind, makes the same file
as one that is not, only later, and one whose recorder stands still writes nothing that another recorder has as well.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

from . import wire
from .encoder import EncoderConfig, MixedFile
from .session import MixSession

# Messages between the pipe and the mixer: four seconds of a full room. What is here survives the recorder. Full: the
# pipe fills, then the recorder drops frames and counts them.
_QUEUE_MESSAGES = 8_000
_PROGRESS_INTERVAL_S = 1.0
# Below the engine and the recorder's own loop: media that is late is repaired by the delay, a late packet is not.
_NICENESS = 5

Message = tuple[wire.MessageKind, int, bytes]
Messages = queue.Queue[Message | None]


def read_messages(source: BinaryIO, into: Messages) -> None:
    """Reads until the recorder closes the pipe, which ends the recording as `FINISH` would."""
    try:
        while len(header := source.read(wire.HEADER_BYTES)) == wire.HEADER_BYTES:
            length, kind, at_us = wire.parse_header(header)
            body = source.read(length)
            if len(body) < length:
                break
            into.put((kind, at_us, body))
    except ValueError as error:
        print(f"broken message: {error}", file=sys.stderr)
    finally:
        into.put(None)


class Mixer:
    """Feeds messages, and the times at which they were said, to a session."""

    def __init__(self, config: wire.MixConfig, messages: Messages) -> None:
        encoder = EncoderConfig(config.width, config.height, config.fps, config.preset, config.crf)
        self._file = MixedFile(Path(config.path), encoder)
        self._began_at_us = config.begins_at_us
        self._messages = messages
        self._session = MixSession(
            self._file,
            width=config.width,
            height=config.height,
            fps=config.fps,
            begins_at_us=self._began_at_us,
            delay_us=config.delay_us,
        )
        self._reported_at = 0.0
        self._clock_offset_us = config.clock_offset_us

    def run(self) -> None:
        """Works until `FINISH` or the end of the pipe, then completes the file."""
        at_us = self._began_at_us
        while (taken := self._messages.get()) is not None:
            kind, at_us, body = taken
            self._session.advance(at_us, self._now_us() - at_us)
            if kind is wire.MessageKind.FINISH:
                break
            self._handle(kind, at_us, body)
            if time.monotonic() - self._reported_at >= _PROGRESS_INTERVAL_S:
                self._report()
        self._session.finish(at_us)
        self._file.close()
        self._report(is_complete=True)

    def _now_us(self) -> int:
        return self._clock_offset_us + time.monotonic_ns() // 1000

    def _handle(self, kind: wire.MessageKind, at_us: int, body: bytes) -> None:
        match kind:
            case wire.MessageKind.FRAME:
                self._session.push(*wire.parse_frame(body))
            case wire.MessageKind.ADD_TRACK:
                self._session.add_track(*wire.parse_add_track(body), at_us)
            case wire.MessageKind.REMOVE_TRACK:
                self._session.remove_track(wire.parse_track(body), at_us)
            case wire.MessageKind.HIDE_TRACK:
                self._session.hide_track(wire.parse_track(body), at_us)

    def _report(self, *, is_complete: bool = False) -> None:
        self._reported_at = time.monotonic()
        progress = wire.MixProgress(
            began_at_us=self._began_at_us,
            size_bytes=self._file.size_bytes,
            duration_us=self._file.duration_us,
            skipped_pictures=self._session.skipped_pictures,
            is_complete=is_complete,
        )
        _tell(progress)


def _tell(progress: wire.MixProgress) -> None:
    with contextlib.suppress(BrokenPipeError):  # the recorder is gone; what it said before is still made
        sys.stdout.buffer.write(progress.encode())
        sys.stdout.buffer.flush()


def main() -> int:
    """Makes one file. Exit status 1 if it could not."""
    os.nice(_NICENESS)
    # Ctrl-C goes to the whole process group; this process ends when the recorder closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    messages: Messages = queue.Queue(_QUEUE_MESSAGES)
    threading.Thread(target=read_messages, args=(sys.stdin.buffer, messages), daemon=True).start()
    first = messages.get()
    if first is None or first[0] is not wire.MessageKind.CONFIG:
        print("started without a configuration", file=sys.stderr)
        return 1
    try:
        Mixer(wire.MixConfig.decode(first[2]), messages).run()
    except OSError as error:
        _tell(wire.MixProgress(began_at_us=0, error=f"cannot write: {error.strerror or error}"))
        return 1
    return 0


if __name__ == "__main__":
    # Not SystemExit: the reading thread has the lock of stdin, which the interpreter closes at its end, or aborts.
    os._exit(main())
