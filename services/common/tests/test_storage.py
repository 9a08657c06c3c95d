"""Files by key never leave their root."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mrtc_common.errors import BadRequestError, NotFoundError
from mrtc_common.storage import LocalStorage, checked_key, safe_part


async def _chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _read(storage: LocalStorage, key: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in storage.read(key, start, end)])


async def test_a_file_is_read_as_written_in_ranges(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    info = await storage.write("app/room/a.mp4", _chunks(b"hello ", b"world"))
    assert info.size_bytes == 11
    assert await _read(storage, "app/room/a.mp4") == b"hello world"
    assert await _read(storage, "app/room/a.mp4", 6) == b"world"
    assert await _read(storage, "app/room/a.mp4", 2, 4) == b"ll"
    assert await _read(storage, "app/room/a.mp4", 20) == b""
    assert [f.key for f in await storage.list("app")] == ["app/room/a.mp4"]
    await storage.delete("app/room/a.mp4")
    await storage.delete("app/room/a.mp4")
    with pytest.raises(NotFoundError):
        await storage.stat("app/room/a.mp4")


async def test_a_file_whose_writing_fails_never_appears(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionError

    storage = LocalStorage(tmp_path)
    with pytest.raises(ConnectionError):
        await storage.write("app/a", broken())
    assert await storage.list("app") == []
    assert list((tmp_path / "app").iterdir()) == []


async def test_a_growing_file_is_visible(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    with storage.open_write("app/a") as file:
        file.write(b"x")
        file.flush()
        assert (await storage.stat("app/a")).size_bytes == 1


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/.hidden", ".", "a/", "a\\b", "a\x00b", "a/b\n", "x" * 2000, "~/a"],
)
async def test_keys_that_lead_elsewhere_are_refused(tmp_path: Path, key: str) -> None:
    storage = LocalStorage(tmp_path)
    with pytest.raises(BadRequestError):
        await storage.stat(key)
    with pytest.raises(BadRequestError):
        storage.open_write(key)


async def test_a_planted_link_does_not_lead_out(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    with pytest.raises(BadRequestError):
        await LocalStorage(tmp_path / "root").stat("link/secret")


@pytest.mark.parametrize("key", ["missing", "folder", "file/below"])
async def test_what_is_no_file_is_not_found(tmp_path: Path, key: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    storage = LocalStorage(tmp_path)
    with pytest.raises(NotFoundError):
        await storage.stat(key)
    with pytest.raises(NotFoundError):
        await _read(storage, key)


@given(st.text())
def test_any_name_becomes_a_safe_part(name: str) -> None:
    checked_key(f"app/{safe_part(name)}")
