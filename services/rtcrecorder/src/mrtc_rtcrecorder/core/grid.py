"""Where each picture of a mixed recording goes."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle in pixels; all four numbers are even, as 4:2:0 pictures need."""

    x: int
    y: int
    width: int
    height: int


def grid(count: int, width: int, height: int) -> list[Rect]:
    """Cells for `count` pictures in a canvas of `width` x `height`, row by row, the last row centred.

    One picture has it all, two stand side by side, then 2x2, 3x3 and so on, as many rows as are needed.
    """
    if count <= 0:
        return []
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    cell_width, cell_height = _even(width // columns), _even(height // rows)
    top = _even((height - rows * cell_height) // 2)
    cells = []
    for index in range(count):
        row, column = divmod(index, columns)
        in_row = min(columns, count - row * columns)
        left = _even((width - in_row * cell_width) // 2)
        cells.append(Rect(left + column * cell_width, top + row * cell_height, cell_width, cell_height))
    return cells


def fit(cell: Rect, width: int, height: int) -> Rect:
    """The largest rectangle of the picture's aspect that lies centred in the cell."""
    if width <= 0 or height <= 0:
        return Rect(cell.x, cell.y, 0, 0)
    scale = min(cell.width / width, cell.height / height)
    fit_width = max(2, min(cell.width, _even(round(width * scale))))
    fit_height = max(2, min(cell.height, _even(round(height * scale))))
    x = cell.x + _even((cell.width - fit_width) // 2)
    y = cell.y + _even((cell.height - fit_height) // 2)
    return Rect(x, y, fit_width, fit_height)


def _even(value: int) -> int:
    return value & ~1
