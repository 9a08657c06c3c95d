"""Names of a recording's files: readable, safe, never used twice."""

from __future__ import annotations

from collections.abc import Callable

from mrtc_common.storage import safe_part


class FileNames:
    """Numbers the files of one recording.

    Args:
        folder: storage key of the recording's folder.
        exists: says whether a storage key exists; a recording that another recorder began has files already.
    """

    def __init__(self, folder: str, exists: Callable[[str], bool]) -> None:
        self._folder = folder
        self._exists = exists
        self._given: set[str] = set()

    def next(self, stem: str, extension: str) -> str:
        """The storage key of a new file: `<folder>/<stem>-<number>.<extension>`."""
        number = 0
        while True:
            base = f"{self._folder}/{safe_part(stem)}-{number:03d}"
            if base not in self._given and not any(self._exists(f"{base}.{e}") for e in _EXTENSIONS):
                self._given.add(base)
                return f"{base}.{extension}"
            number += 1


_EXTENSIONS = ("mp4", "webm", "mkv", "mka")


def recording_folder(app_id: str, room: str, recording_id: str) -> str:
    """Storage key of the folder of a recording."""
    return f"{safe_part(app_id)}/{safe_part(room)}/{safe_part(recording_id)}"
