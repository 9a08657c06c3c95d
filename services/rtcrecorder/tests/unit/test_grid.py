"""Where pictures go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mrtc_rtcrecorder.core.grid import Rect, fit, grid


@pytest.mark.parametrize(
    ("count", "shape"), [(1, (1, 1)), (2, (2, 1)), (3, (2, 2)), (4, (2, 2)), (5, (3, 2)), (9, (3, 3)), (16, (4, 4))]
)
def test_the_grid_has_as_few_cells_as_it_can(count: int, shape: tuple[int, int]) -> None:
    """One, two side by side, then squares."""
    cells = grid(count, 1280, 720)
    assert len({cell.y for cell in cells}) == shape[1]
    assert max(sum(cell.y == y for cell in cells) for y in {cell.y for cell in cells}) == shape[0]


def test_a_last_row_stands_in_the_middle() -> None:
    """Three pictures: two above, one below in the middle."""
    assert grid(3, 1280, 720)[2] == Rect(320, 360, 640, 360)


@given(st.integers(1, 60), st.integers(32, 2000), st.integers(32, 2000))
def test_cells_lie_on_the_canvas_and_apart(count: int, width: int, height: int) -> None:
    """Whatever the size: even numbers, inside, no overlap."""
    cells = grid(count, width & ~1, height & ~1)
    for cell in cells:
        assert not any(value % 2 for value in (cell.x, cell.y, cell.width, cell.height))
        assert 0 <= cell.x <= cell.x + cell.width <= width
        assert 0 <= cell.y <= cell.y + cell.height <= height
    for index, a in enumerate(cells):
        for b in cells[:index]:
            apart = a.x >= b.x + b.width or b.x >= a.x + a.width or a.y >= b.y + b.height or b.y >= a.y + a.height
            assert apart


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_picture_keeps_its_aspect_in_its_cell(width: int, height: int) -> None:
    """Letterboxed, never cut, never stretched by more than rounding to even pixels."""
    cell = Rect(100, 50, 640, 360)
    area = fit(cell, width, height)
    assert area.x >= cell.x
    assert area.y >= cell.y
    assert area.x + area.width <= cell.x + cell.width
    assert area.y + area.height <= cell.y + cell.height
    if min(area.width, area.height) > 20:
        assert abs(area.width / area.height / (width / height) - 1) < 0.15


def test_a_picture_without_size_takes_no_room() -> None:
    """A decoder that has not seen its first picture says 0x0."""
    assert fit(Rect(0, 0, 640, 360), 0, 0).width == 0
