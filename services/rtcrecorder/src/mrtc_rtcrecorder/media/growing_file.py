"""A file that holds nothing but whole fragments at every moment."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

# How often written data is forced to the disk. A killed process loses nothing that was written; this bounds what a
# crashed machine loses.
SYNC_INTERVAL_S = 1.0


_LOOK_INTERVAL_S = 0.05


def wait_until_closed(path: Path, timeout_s: float) -> bool:
    """Waits until no process writes a `GrowingFile` any more; false if one still does. Raises OSError."""
    deadline = time.monotonic() + timeout_s
    with path.open("rb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_LOOK_INTERVAL_S)
            except OSError:
                return True  # a storage without locks: nobody knows
            else:
                return True


class GrowingFile:
    """Collects what a muxer writes and puts it into the file by `commit`, in one write per fragment.

    The file is made by the first commit, so that no reader ever meets an empty one. Seeking back (completion of the
    header at the end) is possible. Until it is closed, or its process dies, it is locked: see `wait_until_closed`.

    Args:
        path: must not exist; its folder is made.

    Raises:
        FileExistsError: from `commit`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None
        self._pending = bytearray()
        self._pending_at = 0
        self._end = 0
        self._synced_at = time.monotonic()
        self._is_dirty = False

    @property
    def size_bytes(self) -> int:
        """Bytes that are in the file."""
        return self._end

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait for `commit`."""
        return len(self._pending)

    def write(self, data: bytes) -> int:
        """Takes bytes at the present position."""
        self._pending += data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves the position; what was pending is committed first."""
        target = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: max(self._end, self.tell())}[whence] + offset
        if target != self.tell():
            self.commit()
            self._pending_at = target
        return target

    def tell(self) -> int:
        """The present position."""
        return self._pending_at + len(self._pending)

    def seekable(self) -> bool:
        """Always true."""
        return True

    def writable(self) -> bool:
        """Always true."""
        return True

    def commit(self) -> None:
        """Puts the pending bytes into the file, and forces them to the disk about once a second."""
        if self._pending:
            self._write_pending()
        if self._is_dirty and time.monotonic() - self._synced_at >= SYNC_INTERVAL_S:
            self.sync()

    def sync(self) -> None:
        """Forces what was committed to the disk."""
        if self._fd is not None and self._is_dirty:
            os.fdatasync(self._fd)
            self._is_dirty = False
        self._synced_at = time.monotonic()

    def close(self) -> None:
        """Commits, syncs and closes. A file that got no bytes is never made."""
        self.commit()
        self.sync()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> GrowingFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_pending(self) -> None:
        if self._fd is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            with contextlib.suppress(OSError):  # a storage without locks
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        view, at = memoryview(bytes(self._pending)), self._pending_at
        while view:
            written = os.pwrite(self._fd, view, at)
            view, at = view[written:], at + written
        self._pending.clear()
        self._pending_at = at
        self._end = max(self._end, at)
        self._is_dirty = True
