"""A process whose wall clock can be set, alone on the machine."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")


class WallClock:
    """The wall clock of whatever runs with its environment; right until it is set.

    Args:
        folder: for its files.
    """

    def __init__(self, folder: Path, name: str) -> None:
        library = folder / "wall_clock.so"
        if not library.exists():
            subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
        self._offset = folder / f"{name}.offset"
        self._offset.write_bytes(struct.pack("=i", 0))
        self.env = {"LD_PRELOAD": str(library), "WALL_CLOCK_OFFSET": str(self._offset)}

    def set(self, offset_s: int) -> None:
        """It is off by so many seconds from now on."""
        with self._offset.open("r+b") as file:
            file.write(struct.pack("=i", offset_s))
