"""Files by key under a root; the interface is what object storage offers too."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import stat
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from .errors import BadRequestError, NotFoundError
from .ids import new_id

_PART_RE = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_.\-]{0,199}")
_MAX_KEY_BYTES = 1024
_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A stored file."""

    key: str
    size_bytes: int
    modified_at_ms: int


class Storage(Protocol):
    """Files by key. Keys are `/`-separated parts of `[A-Za-z0-9_.-]`, none beginning with a dot."""

    def local_path(self, key: str, *, create: bool = False) -> Path:
        """Where libraries that need a real file (PyAV) find it. Raises BadRequestError."""
        ...

    def open_write(self, key: str) -> BinaryIO:
        """Opens a file that is visible while it grows; an existing one is replaced. Raises BadRequestError."""
        ...

    async def write(self, key: str, chunks: AsyncIterator[bytes]) -> FileInfo:
        """Stores a whole file; it appears only when it is complete."""
        ...

    def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Bytes from `start` up to, not including, `end`. Raises NotFoundError, BadRequestError."""
        ...

    async def stat(self, key: str) -> FileInfo:
        """Raises NotFoundError, BadRequestError."""
        ...

    async def list(self, prefix: str) -> Sequence[FileInfo]:
        """Files below a folder, sorted by key."""
        ...

    async def delete(self, key: str) -> None:
        """No error if it does not exist."""
        ...


def checked_key(key: str) -> str:
    """The key, if it is one. Raises BadRequestError: keys never leave their root, whatever a client sends."""
    if len(key) > _MAX_KEY_BYTES or not all(_PART_RE.fullmatch(part) for part in key.split("/")):
        raise BadRequestError("not a storage key: parts of A-Z a-z 0-9 _ . - separated by /, not beginning with a dot")
    return key


class LocalStorage:
    """Files in a directory (local disk or a network share)."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def local_path(self, key: str, *, create: bool = False) -> Path:
        """See `Storage`. `create` makes the folder."""
        path = self._root / checked_key(key)
        # A symbolic link planted below the root must not lead out of it.
        if not path.resolve().is_relative_to(self._root):
            raise BadRequestError("not a storage key")
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def open_write(self, key: str) -> BinaryIO:
        """See `Storage`."""
        return self.local_path(key, create=True).open("wb")

    async def write(self, key: str, chunks: AsyncIterator[bytes]) -> FileInfo:
        """See `Storage`."""
        path = self.local_path(key, create=True)
        partial = path.with_name(f".{new_id('part')}")
        try:
            with partial.open("wb") as file:
                async for chunk in chunks:
                    await asyncio.to_thread(file.write, chunk)
                await asyncio.to_thread(_sync, file)
            await asyncio.to_thread(os.replace, partial, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                partial.unlink()
            raise
        return await self.stat(key)

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """See `Storage`."""
        path = self.local_path(key)
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NotFoundError("no such file") from None
        with file:
            file.seek(start)
            remaining = None if end is None else max(0, end - start)
            while remaining is None or remaining > 0:
                size = _CHUNK_BYTES if remaining is None else min(_CHUNK_BYTES, remaining)
                chunk = await asyncio.to_thread(file.read, size)
                if not chunk:
                    return
                if remaining is not None:
                    remaining -= len(chunk)
                yield chunk

    async def stat(self, key: str) -> FileInfo:
        """See `Storage`."""
        path = self.local_path(key)
        try:
            info = await asyncio.to_thread(path.stat)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError("no such file") from None
        if not stat.S_ISREG(info.st_mode):
            raise NotFoundError("no such file")
        return FileInfo(key, info.st_size, info.st_mtime_ns // 1_000_000)

    async def list(self, prefix: str) -> Sequence[FileInfo]:
        """See `Storage`."""
        return await asyncio.to_thread(self._list, self.local_path(prefix))

    async def delete(self, key: str) -> None:
        """See `Storage`."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            await asyncio.to_thread(self.local_path(key).unlink)

    def _list(self, folder: Path) -> Sequence[FileInfo]:
        files = []
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file() or path.name.startswith("."):
                continue
            info = path.stat()
            key = path.relative_to(self._root).as_posix()
            files.append(FileInfo(key, info.st_size, info.st_mtime_ns // 1_000_000))
        return files


def safe_part(name: str) -> str:
    """A text of an app (room, identity) as one part of a key: unsafe characters become `_`, never empty."""
    cleaned = re.sub(r"[^A-Za-z0-9_.\-]", "_", name).lstrip(".")[:150]
    return cleaned or "_"


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
