"""Pictures of a whole film: a poster, a sheet with a cell for each shot, and a preview that moves."""

from __future__ import annotations

import errno
import itertools
import math
import os
from collections.abc import Iterator
from typing import Any

from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from prefect_kling.media.confined.frames import shown_frames
from prefect_kling.media.confined.opening import Refused, Task, Unwritable, open_clip
from prefect_kling.media.confined.pictures import (
    decoded,
    mean_luma,
    orientation,
    plausible_aspect,
    square_rgb,
    upright,
)
from prefect_kling.media.lettering import font_of

__all__ = ["stills"]

CELL = 320 * 180  # pixels of a cell and of the preview, whatever their shape
MOST_BYTES = 1_000_000  # of the sheet, and of the preview: Prefect's lists carry them whole
DARK = 0.06  # mean luma, of 1, of a frame that tells nothing
GROUND, INK = 24, 230  # greys
LETTERS = 14  # pixels, of a label
GAP = 8  # pixels between cells
SHEET_QUALITIES = (85, 75, 60, 45)
# How a preview becomes smaller: its sides, its quality of 100, and of how many frames one stays.
PREVIEW_WAYS = [(1.0, 70, 1), (1.0, 45, 1), (0.75, 40, 1), (0.75, 30, 2), (0.5, 20, 2)]


def stills(path: str, task: Task) -> dict[str, Any]:
    """Makes `poster.jpg`, `sheet.jpg` and `preview.webp` in the folder `out`.

    Args:
        path: the film.
        task: `wanted`: which of the film's frames, counted from 0. `frames`: how many it has; `shots`, each with its
            `label`, `number` and `seconds`, the frame for its `cell`, and `preview` frames; `poster`: a frame, or null
            for the first cell that is not dark; `note`: a line below the cells; `rate`: frames a second of the preview.
    """
    wanted, folder = task["wanted"], task["out"]
    container, video, _ = open_clip(path, task["limits"])
    with container:
        # The film is one that we made: a second thread is worth the memory it takes.
        video.codec_context.thread_count = 2
        shown = shown_frames(container, video)
        times = sorted(shown)
        if len(times) != wanted["frames"]:
            raise Refused(f"shows {len(times)} frames instead of {wanted['frames']}")
        cells = {shot["cell"] for shot in wanted["shots"]}
        moving = [frame for shot in wanted["shots"] for frame in shot["preview"]]
        posters = cells if wanted["poster"] is None else {wanted["poster"]}
        numbers = {times[number]: number for number in {*cells, *moving, *posters}}
        small: dict[int, Any] = {}
        poster, light = None, -1.0
        for frame in chosen(container, video, {pts: shown[pts] for pts in numbers}):
            number = numbers[frame.pts or 0]
            small[number] = image_of(frame, video, CELL)
            if number in posters and light < DARK and (found := mean_luma(frame)) > light:
                poster, light = frame, found
        if poster is None:
            raise Refused("shows none of the frames that are wanted")
        large = image_of(poster, video)
    try:
        large.save(f"{folder}/poster.jpg", "JPEG", quality=90)
        save_sheet(sheet([small[shot["cell"]] for shot in wanted["shots"]], wanted), f"{folder}/sheet.jpg")
        save_preview([small[number] for number in moving], wanted["rate"], f"{folder}/preview.webp")
    except OSError as error:
        raise Unwritable(error.errno or errno.EIO) from error
    return {}


def chosen(container: InputContainer, video: VideoStream, wanted: dict[int, int]) -> Iterator[VideoFrame]:
    """The frames at these times in ticks, each given with its keyframe; what can be left out on the way to them is."""
    for keyframe, times in itertools.groupby(sorted(wanted), key=lambda pts: wanted[pts]):
        left = set(times)
        container.seek(keyframe, stream=video, backward=True)
        for packet in container.demux(video):
            # Frames that no other one is made of need not be decoded: half of all, mostly.
            video.codec_context.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in left else "NONREF"
            for frame in decoded(packet, "a frame of it"):
                if frame.pts in left:
                    left.discard(frame.pts)
                    yield frame
            if not left:
                break
        if left:
            raise Refused("is damaged: not all of its frames can be decoded")


def image_of(frame: VideoFrame, video: VideoStream, pixels: int | None = None) -> Any:
    """The frame as a player shows it, of at most so many pixels."""
    mirrored, rotation = orientation(frame)
    return upright(square_rgb(frame, plausible_aspect(video), pixels), mirrored, rotation)


def sheet(cells: list[Any], wanted: dict[str, Any]) -> Any:
    """The cells in rows, each with its shot's name and seconds below it; about as wide as a screen is."""
    from PIL import Image

    lettering, high = font_of(None), round(LETTERS * 1.6)
    width, height = cells[0].width + GAP, cells[0].height + high + GAP
    columns = min(max(round(math.sqrt(len(cells) * height / width * 16 / 9)), 1), len(cells))
    rows = -(-len(cells) // columns)
    note = high * bool(wanted["note"])
    whole = Image.new("RGB", (columns * width + GAP, rows * height + GAP + note), (GROUND,) * 3)

    def write(text: str, left: int, top: int, most: int, *, right: bool = False) -> int:
        """Writes a line, no wider than it may be; how wide it is."""
        mask = lettering.label(text, LETTERS, most)
        whole.paste((INK,) * 3, (left + (most - mask.width) * right, top), mask)
        return int(mask.width)

    for number, (cell, shot) in enumerate(zip(cells, wanted["shots"], strict=True)):
        left, top = GAP + number % columns * width, GAP + number // columns * height
        whole.paste(cell, (left, top))
        below = top + cell.height + 2
        taken = write(f"{shot['seconds']:.1f} s", left, below, cell.width, right=True)
        # Letters that are not there are not left out of a name: then it is the shot's number.
        name = f"Shot {shot['number']}" if lettering.missing(shot["label"]) else shot["label"]
        write(name, left, below, max(cell.width - taken - GAP, 1))
    if note:
        write(wanted["note"], GAP, whole.height - high, whole.width - 2 * GAP)
    return whole


def save_sheet(image: Any, out: str) -> None:
    """As good as its bytes allow, then smaller."""
    from PIL.Image import Resampling

    while True:
        for quality in SHEET_QUALITIES:
            image.save(out, "JPEG", quality=quality)
            if os.stat(out).st_size <= MOST_BYTES:  # noqa: PTH116 - paths are text here, as they came
                return
        image = image.resize((image.width * 3 // 4, image.height * 3 // 4), Resampling.LANCZOS)


def save_preview(images: list[Any], rate: float, out: str) -> None:
    """Likewise, and with fewer frames in the same time; in the end one frame is left, which always fits."""
    from PIL.Image import Resampling

    ways = itertools.chain(PREVIEW_WAYS, ((0.5, 10, 2**power) for power in itertools.count(2)))
    for scale, quality, step in ways:
        frames = images[::step]
        if scale < 1:
            size = tuple(max(round(side * scale), 1) for side in images[0].size)
            frames = [image.resize(size, Resampling.LANCZOS) for image in frames]
        first, *others = frames
        duration = round(1000 * step / rate)
        first.save(
            out, "WEBP", save_all=True, append_images=others, duration=duration, loop=0, quality=quality, method=2
        )
        if os.stat(out).st_size <= MOST_BYTES:  # noqa: PTH116 - as above
            return
