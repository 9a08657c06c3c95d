"""Files that hold whole fragments only."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from mrtc_rtcrecorder.media.growing_file import GrowingFile, wait_until_closed


def test_the_file_appears_with_its_first_commit(tmp_path: Path) -> None:
    """Nobody meets an empty one."""
    file = GrowingFile(tmp_path / "a" / "b")
    file.write(b"one")
    assert not (tmp_path / "a").exists()
    file.commit()
    assert (tmp_path / "a" / "b").read_bytes() == b"one"
    file.close()


def test_seeking_back_overwrites_and_goes_on_at_the_end(tmp_path: Path) -> None:
    """As muxers do to complete a header."""
    with GrowingFile(tmp_path / "f") as file:
        file.write(b"HEAD----")
        file.write(b"body")
        file.seek(4)
        file.write(b"done")
        file.seek(0, os.SEEK_END)
        file.write(b"tail")
    assert (tmp_path / "f").read_bytes() == b"HEADdonebodytail"
    assert file.size_bytes == 16


def test_what_is_not_committed_is_not_in_the_file(tmp_path: Path) -> None:
    """Half a fragment would not decode."""
    file = GrowingFile(tmp_path / "f")
    file.write(b"whole")
    file.commit()
    file.write(b"ha")
    assert (tmp_path / "f").read_bytes() == b"whole"
    assert file.pending_bytes == 2
    file.close()


def test_a_file_without_bytes_is_never_made(tmp_path: Path) -> None:
    """A recording of nothing leaves nothing."""
    GrowingFile(tmp_path / "f").close()
    assert not (tmp_path / "f").exists()


def test_it_is_readable_by_its_owner_and_group_only(tmp_path: Path) -> None:
    """Recordings are private."""
    with GrowingFile(tmp_path / "f") as file:
        file.write(b"x")
    assert (tmp_path / "f").stat().st_mode & 0o007 == 0


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    """It reaches whoever writes the recording's record."""
    (tmp_path / "file").write_bytes(b"")
    file = GrowingFile(tmp_path / "file" / "below")
    file.write(b"x")
    with pytest.raises(OSError, match="file"):
        file.commit()


def test_who_wants_a_whole_file_can_wait_for_it(tmp_path: Path) -> None:
    """It is locked until it is closed, or its writer dies."""
    file = GrowingFile(tmp_path / "f")
    file.write(b"fragment")
    file.commit()
    assert not wait_until_closed(tmp_path / "f", 0.0)
    closing = threading.Timer(0.1, file.close)
    closing.start()
    assert wait_until_closed(tmp_path / "f", 10.0)
    closing.join()
