"""Small pictures of clips, for a table of them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from prefect_kling.media.untrusted import ProbeLimits, ask

__all__ = ["thumbnails"]

PIXELS: Final = 160 * 90


async def thumbnails(clips: Sequence[Path], *, frames: int = 1, pixels: int = PIXELS) -> list[bytes]:
    """The first frame of each clip, turned and with square pixels as a player shows it, in one confined child.

    Args:
        clips: not trusted.
        frames: how many, evenly chosen from the first to the last, side by side.
        pixels: of a frame.

    Returns:
        A WebP of some 3 kB for each clip, of as many pixels as 160 by 90 have, whatever its shape.

    Raises:
        InvalidMedia: a clip is broken or hostile; the text names it and says why.
        OSError: there is no room for temporary files.
    """
    with tempfile.TemporaryDirectory(prefix="kling-") as folder:
        names = [f"{number}.webp" for number in range(len(clips))]
        each = [{"name": name} for name in names]
        await ask("thumbnail", clips, ProbeLimits(), out=Path(folder), each=each, frames=frames, pixels=pixels)
        return [await asyncio.to_thread((Path(folder) / name).read_bytes) for name in names]
