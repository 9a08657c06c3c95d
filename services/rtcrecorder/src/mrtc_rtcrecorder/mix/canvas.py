"""The picture of a mixed recording: a YUV 4:2:0 canvas into which pictures are scaled."""

from __future__ import annotations

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation, VideoReformatter

from mrtc_rtcrecorder.core.grid import Rect

Plane = npt.NDArray[np.uint8]
_BLACK_Y, _BLACK_UV = 16, 128


class Canvas:
    """A picture of even width and height that starts black."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._data = np.empty((height * 3 // 2, width), np.uint8)
        y_size, uv_size = width * height, width * height // 4
        flat = self._data.reshape(-1)
        self._planes: tuple[Plane, Plane, Plane] = (
            flat[:y_size].reshape(height, width),
            flat[y_size : y_size + uv_size].reshape(height // 2, width // 2),
            flat[y_size + uv_size :].reshape(height // 2, width // 2),
        )
        self.clear(Rect(0, 0, width, height))

    def clear(self, area: Rect) -> None:
        """Makes an area black."""
        for index, plane in enumerate(self._planes):
            self._cut(plane, index, area)[...] = _BLACK_UV if index else _BLACK_Y

    def draw(self, scaler: VideoReformatter, picture: av.VideoFrame, area: Rect) -> None:
        """Scales a picture into an area."""
        if not area.width or not area.height:
            return
        scaled = scaler.reformat(
            picture,
            width=area.width,
            height=area.height,
            format="yuv420p",
            interpolation=Interpolation.FAST_BILINEAR,
        )
        for index, (plane, source) in enumerate(zip(self._planes, scaled.planes, strict=True)):
            rows = np.frombuffer(memoryview(source), np.uint8).reshape(-1, source.line_size)
            self._cut(plane, index, area)[...] = rows[: source.height, : source.width]

    def frame(self) -> av.VideoFrame:
        """A copy as a frame for an encoder."""
        return av.VideoFrame.from_ndarray(self._data, format="yuv420p")

    def pixel(self, x: int, y: int) -> tuple[int, int, int]:
        """Y, U and V at a place; for tests."""
        luma, blue, red = self._planes
        return int(luma[y, x]), int(blue[y // 2, x // 2]), int(red[y // 2, x // 2])

    @staticmethod
    def _cut(plane: Plane, index: int, area: Rect) -> Plane:
        shift = 1 if index else 0
        x, y = area.x >> shift, area.y >> shift
        return plane[y : y + (area.height >> shift), x : x + (area.width >> shift)]
