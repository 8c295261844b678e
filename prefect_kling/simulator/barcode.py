"""A barcode in the picture: which task and shot a frame belongs to, and which frame it is.

Off by default, since it shows. Two rows of cells at the top left: 8 bits to recognise it by, 32 of the task
(`tag_of(task_id)`), 8 of the shot, 16 of the frame, 16 of checksum. It survives encoding, scaling and colour changes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from prefect_kling.simulator.planes import Bytes

__all__ = ["Stamp", "read", "stamp", "tag_of"]

COLUMNS, ROWS = 40, 2
SYNC = 0b10110010
BLACK, WHITE = 16, 235


@dataclass(frozen=True)
class Stamp:
    """What a barcode says: the task's tag, the shot within the clip and the frame within the clip, both from 0."""

    tag: int
    shot: int
    frame: int


def tag_of(task_id: str) -> int:
    """The 32 bits that stand for a task."""
    return zlib.crc32(task_id.encode())


def stamp(luma: Bytes, what: Stamp) -> None:
    """Draws the barcode into a luma plane, in place."""
    cell_width, cell_height = _cell(luma)
    grid = _bits(what).reshape(ROWS, COLUMNS)
    cells = np.where(grid, WHITE, BLACK).astype(np.uint8)
    luma[: ROWS * cell_height, : COLUMNS * cell_width] = cells.repeat(cell_height, 0).repeat(cell_width, 1)


def read(luma: Bytes) -> Stamp | None:
    """Reads a barcode, or gives None where there is none that is whole."""
    cell_width, cell_height = _cell(luma)
    area = luma[: ROWS * cell_height, : COLUMNS * cell_width]
    cells = area.reshape(ROWS, cell_height, COLUMNS, cell_width).mean(axis=(1, 3))
    bits = (cells > (BLACK + WHITE) / 2).reshape(-1)
    data = np.packbits(bits).tobytes()
    found = Stamp(int.from_bytes(data[1:5], "big"), data[5], int.from_bytes(data[6:8], "big"))
    return found if np.array_equal(_bits(found), bits) else None


def _cell(luma: Bytes) -> tuple[int, int]:
    height, width = luma.shape
    return max(width // 64, 1), max(min(width, height) // 48, 1)


def _bits(what: Stamp) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    data = bytes([SYNC]) + what.tag.to_bytes(4, "big") + bytes([what.shot & 255]) + (what.frame & 0xFFFF).to_bytes(2)
    checked = data + (zlib.crc32(data) & 0xFFFF).to_bytes(2, "big")
    bits: np.ndarray[tuple[int], np.dtype[np.bool_]] = np.unpackbits(np.frombuffer(checked, np.uint8)).astype(np.bool_)
    return bits
