"""Small pictures of clips: of their first frame, in their shape, and of few bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.thumbnails import thumbnails

MakeClip = Callable[..., Path]


def read(picture: Image.Image) -> tuple[int, int]:
    """The shot and the frame that a picture's barcode names."""
    grey = np.asarray(picture.convert("L"))
    height, width = grey.shape
    row = grey[height * 3 // 8 - 1 : height * 3 // 8 + 2].mean(axis=0)
    bits = "".join(str(int(row[(2 * bit + 1) * width // 32] > 128)) for bit in range(16))
    return int(bits[:8], 2), int(bits[8:], 2)


async def test_each_clip_gives_its_first_frame_small_and_in_its_shape(make_clip: MakeClip) -> None:
    clips = [
        make_clip("5.mp4", shot=5, size=(640, 360)),
        make_clip("6.mp4", shot=6, size=(360, 640)),
        make_clip("7.mp4", shot=7, size=(180, 180), aspect=Fraction(2)),
    ]
    pictures = [Image.open(io.BytesIO(found)) for found in await thumbnails(clips)]
    assert [picture.size for picture in pictures] == [(160, 90), (90, 160), (170, 85)]
    assert [read(picture) for picture in pictures] == [(5, 0), (6, 0), (7, 0)]


async def test_more_frames_are_side_by_side_from_the_first_to_the_last(make_clip: MakeClip) -> None:
    (found,) = await thumbnails([make_clip("5.mp4", shot=5, frames=25, size=(640, 360))], frames=3)
    picture = Image.open(io.BytesIO(found))
    assert picture.size == (480, 90)
    parts = [picture.crop((left, 0, left + 160, 90)) for left in (0, 160, 320)]
    assert [read(part) for part in parts] == [(5, 0), (5, 12), (5, 24)]


async def test_a_picture_is_of_a_few_kilobytes(make_clip: MakeClip) -> None:
    (found,) = await thumbnails([make_clip(size=(1280, 720), frames=2, noise=True)])
    assert len(found) < 20_000


async def test_what_is_no_clip_is_named(make_clip: MakeClip, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no film")
    with pytest.raises(InvalidMedia, match=r"text\.mp4"):
        await thumbnails([make_clip(), text])


async def test_nothing_is_asked_where_there_are_no_clips() -> None:
    assert await thumbnails([]) == []
