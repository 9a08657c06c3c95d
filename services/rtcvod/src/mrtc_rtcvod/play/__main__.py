"""Runs the playing process: commands on standard input, frames on standard output. Started by rtcvod only."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import time
from typing import BinaryIO

from mrtc_rtcvod.core.pacer import Pacer
from mrtc_rtcvod.errors import BadMediaError

from .player import Player
from .probe import probe
from .wire import MessageKind, PlayedFrame, PlayOptions, message

# Below the engine: a frame is handed out ahead of its time, a packet is not.
_NICENESS = 3


def _follow_commands(source: BinaryIO, player: Player) -> None:
    """Until rtcvod closes the pipe, which ends this process."""
    for line in source:
        try:
            command = json.loads(line)
        except ValueError:
            continue
        if "keyframe" in command:
            player.request_keyframe(int(command["keyframe"]))
        elif "alternative" in command:
            player.add_alternative(str(command["alternative"]))
    os._exit(0)


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _emit(frame: PlayedFrame) -> None:
    _write(frame.encode())


def _now_us() -> int:
    return time.monotonic_ns() // 1000


def _fence(options: PlayOptions) -> None:
    """Foreign files are decoded here: bound what a crafted one can take, and write no core of it."""
    limit = options.memory_limit_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    os.nice(_NICENESS)


def main() -> int:
    """Plays one file. Exit status 1 if it could not."""
    # Ctrl-C goes to the whole process group; this process ends when rtcvod closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    options = PlayOptions.decode(sys.stdin.buffer.readline())
    _fence(options)
    try:
        player = Player(probe(options.path), options, Pacer(_now_us, time.sleep), _emit)
        _write(player.opened.encode())
        threading.Thread(target=_follow_commands, args=(sys.stdin.buffer, player), daemon=True).start()
        player.play()
        _write(message(MessageKind.ENDED))
    except BadMediaError as error:
        _write(message(MessageKind.FAILED, str(error).encode()))
        return 1
    except MemoryError:
        _write(message(MessageKind.FAILED, b"the file needs more memory than a player may use"))
        return 1
    except BrokenPipeError:
        return 1
    return 0


if __name__ == "__main__":
    # Not SystemExit: the reading thread has the lock of stdin, which the interpreter closes at its end, or aborts.
    os._exit(main())
