"""The timeline of a mixed recording: which picture and which sound belong at which moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import av

from mrtc_rtcrecorder.core.frames import Frame, Kind
from mrtc_rtcrecorder.core.grid import Rect, fit, grid

from .canvas import Canvas
from .encoder import SAMPLES_PER_BLOCK
from .inputs import PictureInput, SoundInput
from .sound import RATE, Samples, SoundMixer

# More pictures than this are not shown (their sound is heard): a cell would be smaller than a thumb.
MAX_TILES = 25
# Tracks beyond this are refused: a room can have more publishers than one core can decode.
MAX_TRACKS = 200
# Of how many pictures a mixer makes one, by the whole seconds that it is behind. Every third still looks like motion,
# and is three times as fast, which catches up with what a busy machine takes to start the process. What is not yet
# written is lost if the process dies with its recorder, so it must not become much; sound is never left out.
_SHARES = (1, 2, 3, 3, 3, 3, 4, 4, 5, 5)


class MixOutput(Protocol):
    """Where the mixed recording goes."""

    def write_picture(self, index: int, picture: av.VideoFrame) -> None:
        """Takes the picture of tick `index`."""
        ...

    def write_sound(self, position: int, block: Samples) -> None:
        """Takes `SAMPLES_PER_BLOCK` samples that begin at `position`."""
        ...


@dataclass(slots=True)
class _Tile:
    """A picture's place on the canvas.

    Attributes:
        cell: its part of the grid; None if there are too many.
        area: where in the cell its picture was drawn last; None if the cell is black.
        is_current: the canvas shows what the track showed last.
        is_shown: the timeline has reached its coming.
    """

    track: PictureInput
    cell: Rect | None = None
    area: Rect | None = None
    is_current: bool = False
    is_shown: bool = False


class MixSession:
    """Composes and sums what has come, behind the capture clock.

    Whatever arrives in time is shown and heard at its capture time, however it arrived; what is missing is black and
    silent. A moment is written when every track has come to it: what is not yet written is lost if the process dies
    with its recorder. Nothing here reads a clock: `advance` is told the time.

    Args:
        output: takes pictures and sound.
        width, height, fps: of the picture.
        begins_at_us: capture time (Unix microseconds) of the first tick.
        delay_us: how long at most a moment waits for the tracks that have not come to it. It waits half of that in any
            case, for those of whom nothing has been heard for a while.
    """

    def __init__(
        self,
        output: MixOutput,
        *,
        width: int,
        height: int,
        fps: int,
        begins_at_us: int,
        delay_us: int,
    ) -> None:
        self._output = output
        self._canvas = Canvas(width, height)
        self._fps = fps
        self._begins_at_us = begins_at_us
        self._delay_us = delay_us
        self._awaited: PictureInput | SoundInput | None = None
        self._tick = 0
        self._last_picture = -max(_SHARES)
        self._position = 0
        self._tiles: dict[int, _Tile] = {}
        self._sounds: dict[int, SoundInput] = {}
        self._mixer = SoundMixer()
        self._has_new_layout = False
        self._actions: deque[tuple[int, Callable[[], None]]] = deque()
        self.skipped_pictures = 0
        self.refused_tracks = 0

    def add_track(self, track: int, kind: Kind, now_us: int) -> None:
        """A track joins, or comes anew under the same number. It is shown when the timeline comes to `now_us`."""
        known = self._tiles.get(track) or self._sounds.get(track)
        if isinstance(known, _Tile):
            known.track.restart(now_us)
        elif known is not None:
            known.restart(now_us)
        elif len(self._tiles) + len(self._sounds) >= MAX_TRACKS:
            self.refused_tracks += 1
        elif kind is Kind.VIDEO:
            self._tiles[track] = tile = _Tile(PictureInput(now_us))
            self._later(now_us, lambda: self._show(tile))
        else:
            self._sounds[track] = SoundInput(now_us)

    def remove_track(self, track: int, now_us: int) -> None:
        """A track leaves: its cell is given to the others when all that it sent was shown."""
        self._later(now_us, lambda: self._remove(track))

    def hide_track(self, track: int, now_us: int) -> None:
        """A muted picture is black at once, not after it has gone stale."""
        tile = self._tiles.get(track)
        if tile is not None:
            self._later(now_us, tile.track.hide)

    def push(self, track: int, frame: Frame) -> None:
        """Takes a frame of a track; those of unknown tracks are dropped."""
        if (tile := self._tiles.get(track)) is not None:
            tile.track.push(frame)
        elif (sound := self._sounds.get(track)) is not None:
            sound.push(frame)

    def advance(self, now_us: int, behind_us: int = 0) -> None:
        """Does all ticks that are due at this time, which is `behind_us` ago."""
        while self._is_due(self._tick_time(self._tick), now_us):
            self._do_tick(skip_picture=self._is_left_out(behind_us))

    def finish(self, at_us: int) -> None:
        """Does all ticks up to a capture time without waiting for the delay."""
        while self._tick_time(self._tick) <= at_us:
            self._do_tick(skip_picture=False)

    def _is_due(self, at_us: int, now_us: int) -> bool:
        waited_us = now_us - at_us
        if not self._delay_us // 2 <= waited_us < self._delay_us:
            return waited_us >= self._delay_us
        # One that has not come settles it: the others need not be asked with every frame.
        if self._awaited is None or not self._awaited.is_awaited(at_us, now_us):
            self._awaited = next((one for one in self._inputs() if one.is_awaited(at_us, now_us)), None)
        return self._awaited is None

    def _inputs(self) -> Iterator[PictureInput | SoundInput]:
        yield from (tile.track for tile in self._tiles.values())
        yield from self._sounds.values()

    def _later(self, at_us: int, action: Callable[[], None]) -> None:
        """What is told now belongs at now on the timeline, which comes there after the delay."""
        self._actions.append((at_us, action))

    def _show(self, tile: _Tile) -> None:
        tile.is_shown = self._has_new_layout = True

    def _remove(self, track: int) -> None:
        if self._tiles.pop(track, None) is not None:
            self._has_new_layout = True
        self._sounds.pop(track, None)
        self._mixer.remove(track)
        self._awaited = None

    def _is_left_out(self, behind_us: int) -> bool:
        """Whether the next picture is not made since the machine cannot keep up."""
        seconds = max(0, behind_us // 1_000_000)
        return seconds >= len(_SHARES) or self._tick - self._last_picture < _SHARES[seconds]

    def _tick_time(self, tick: int) -> int:
        return self._begins_at_us + tick * 1_000_000 // self._fps

    def _do_tick(self, *, skip_picture: bool) -> None:
        at_us = self._tick_time(self._tick)
        while self._actions and self._actions[0][0] <= at_us:
            self._actions.popleft()[1]()
        self._mix_until(at_us)
        self._compose(at_us, draw=not skip_picture)
        if skip_picture:
            self.skipped_pictures += 1
        else:
            self._output.write_picture(self._tick, self._canvas.frame())
            self._last_picture = self._tick
        self._tick += 1

    def _mix_until(self, at_us: int) -> None:
        for track, sound in self._sounds.items():
            for time_us, samples in sound.advance(at_us):
                self._mixer.push(track, (time_us - self._begins_at_us) * RATE // 1_000_000, samples)
        # A packet holds sound from its capture time on: what is not yet decoded begins after `at_us`.
        reached = (at_us - self._begins_at_us) * RATE // 1_000_000
        while self._position + SAMPLES_PER_BLOCK <= reached:
            self._output.write_sound(self._position, self._mixer.read(self._position, SAMPLES_PER_BLOCK))
            self._position += SAMPLES_PER_BLOCK

    def _compose(self, at_us: int, *, draw: bool) -> None:
        due = [(tile, *tile.track.advance(at_us)) for tile in self._tiles.values()]
        if self._has_new_layout:
            self._lay_out()
        for tile, picture, has_changed in due:
            tile.is_current = tile.is_current and not has_changed
            if draw and not tile.is_current:
                self._draw(tile, picture)

    def _lay_out(self) -> None:
        self._has_new_layout = False
        self._canvas.clear(Rect(0, 0, self._canvas.width, self._canvas.height))
        shown = [tile for tile in self._tiles.values() if tile.is_shown]
        cells = grid(min(len(shown), MAX_TILES), self._canvas.width, self._canvas.height)
        for index, tile in enumerate(shown):
            tile.cell = cells[index] if index < len(cells) else None
            tile.area, tile.is_current = None, False

    def _draw(self, tile: _Tile, picture: av.VideoFrame | None) -> None:
        tile.is_current = True
        if tile.cell is None:
            return
        area = fit(tile.cell, picture.width, picture.height) if picture is not None else None
        if area != tile.area:
            self._canvas.clear(tile.cell)
        if picture is not None and area is not None:
            self._canvas.draw(tile.track.scaler, picture, area)
        tile.area = area
