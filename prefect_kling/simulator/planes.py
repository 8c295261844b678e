"""Pictures as 8-bit 4:2:0 planes in BT.709, limited range: what the encoder takes, and cheap to touch in patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

__all__ = ["Bytes", "Floats", "Planes", "from_rgb", "to_rgb", "ycc"]

Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.floating[Any]]]

KR, KG, KB = 0.2126, 0.7152, 0.0722


@dataclass(frozen=True)
class Planes:
    """One picture. `y`, `u` and `v` are views into `whole`, whose shape is (3/2 of the height, width)."""

    whole: Bytes
    y: Bytes
    u: Bytes
    v: Bytes

    @classmethod
    def of(cls, whole: Bytes) -> Planes:
        """Views a contiguous array of shape (3/2 of the height, width) as planes; both sides are even."""
        rows, width = whole.shape
        height = rows * 2 // 3
        flat = whole.reshape(-1)
        luma, chroma = height * width, height * width // 4
        half = (height // 2, width // 2)
        return cls(
            whole,
            flat[:luma].reshape(height, width),
            flat[luma : luma + chroma].reshape(half),
            flat[luma + chroma :].reshape(half),
        )

    def copy(self) -> Planes:
        """The same picture in memory of its own."""
        return Planes.of(self.whole.copy())

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.y.shape
        return width, height


def ycc(red: float, green: float, blue: float) -> tuple[float, float, float]:
    """One colour, 0 to 255 each, as limited-range Y, U, V."""
    luma = KR * red + KG * green + KB * blue
    return (
        16 + 219 * luma / 255,
        128 + 224 * (blue - luma) / (2 * (1 - KB)) / 255,
        128 + 224 * (red - luma) / (2 * (1 - KR)) / 255,
    )


def from_rgb(rgb: Floats) -> Planes:
    """Converts a picture of shape (height, width, 3), 0 to 1; both sides are even."""
    height, width, _ = rgb.shape
    red, green, blue = (rgb[..., channel] for channel in range(3))
    luma = KR * red + KG * green + KB * blue
    planes = Planes.of(np.empty((height * 3 // 2, width), np.uint8))
    planes.y[:] = _bytes(16 + 219 * luma)
    planes.u[:] = _bytes(128 + 224 / (2 * (1 - KB)) * _halved(blue - luma))
    planes.v[:] = _bytes(128 + 224 / (2 * (1 - KR)) * _halved(red - luma))
    return planes


def to_rgb(planes: Planes) -> Floats:
    """The picture as shape (height, width, 3), 0 to 1."""
    luma = (planes.y.astype(np.float32) - 16) / 219
    blue_difference, red_difference = (
        ((plane.astype(np.float32) - 128) / 224).repeat(2, 0).repeat(2, 1) for plane in (planes.u, planes.v)
    )
    red = luma + 2 * (1 - KR) * red_difference
    blue = luma + 2 * (1 - KB) * blue_difference
    green = (luma - KR * red - KB * blue) / KG
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 1).astype(np.float32)


def _halved(plane: Floats) -> Floats:
    halved: Floats = (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 4
    return halved


def _bytes(plane: Floats) -> Bytes:
    return np.clip(np.rint(plane), 0, 255).astype(np.uint8)
