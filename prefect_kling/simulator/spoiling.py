"""Finished clips made bad: completed and billed all the same, and not what was ordered.

The rendered file is read back and written anew with its fault in it, so that a clip of any kind can have it: a base
edit, one in HEVC, one with uneven frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np

from prefect_kling.simulator.config import MediaSpec
from prefect_kling.simulator.edits import even_spacing
from prefect_kling.simulator.encode import AUDIO_RATE, ClipWriter
from prefect_kling.simulator.planes import Planes
from prefect_kling.simulator.sound import silence
from prefect_kling.simulator.trace import planes_of

__all__ = ["PICTURE_FAULTS", "spoil"]

PICTURE_FAULTS: Final = ("black", "frozen", "short", "fade-out")
"""Faults of `prefect_kling.simulator.faults` after which a clip no longer ends as it was painted."""

FADE_SECONDS: Final = 0.5
BLACK, GREY = 16, 128  # luma and chroma of black, limited range


def spoil(path: Path, fault: str, media: MediaSpec, *, abandoned: Callable[[], bool] = lambda: False) -> float:
    """Gives a finished clip one of the faults; its picture's length in seconds afterwards.

    Args:
        path: the clip, which is replaced.
        fault: `black`, `frozen`, `mute`, `short`, `corrupt` or `fade-out`.
        media: how its file was made.
        abandoned: asked before each frame; once it is true, writing stops.

    Raises:
        Abandoned: it was told to stop.
    """
    if fault == "corrupt":
        return _damage(path)
    spoiled = path.with_name(f"{path.name}.spoiled")
    seconds = _rewrite(path, spoiled, fault, media, abandoned)
    spoiled.replace(path)
    return seconds


def _rewrite(source: Path, path: Path, fault: str, media: MediaSpec, abandoned: Callable[[], bool]) -> float:
    even = even_spacing(source)
    with ExitStack() as stack:
        clip, heard = (stack.enter_context(av.open(str(source), format="mov")) for _ in range(2))
        video = clip.streams.video[0]
        rate = Fraction(video.average_rate or media.fps)
        times = [frame.pts or 0 for frame in clip.decode(video)]
        frames = len(times) // 2 if fault == "short" else len(times)
        sound = bool(heard.streams.audio)
        clip.seek(0)
        writer = stack.enter_context(
            ClipWriter(
                path,
                (video.width // 2 * 2, video.height // 2 * 2),
                # What was hidden was not read, so nothing is left to hide.
                media.model_copy(update={"hidden_frames": 0}),
                # A trace would tell of an end that the picture no longer has.
                comment="" if fault in PICTURE_FAULTS else clip.metadata.get("comment", ""),
                sound=sound and fault == "mute",
                copied=heard if sound and fault != "mute" else None,
                rate=rate,
                time_base=None if even else video.time_base,
                abandoned=abandoned,
            )
        )
        pictures = _pictures((planes_of(frame) for frame in clip.decode(video)), frames, fault, rate)
        for number, planes in enumerate(pictures):
            writer.write(planes, number if even else times[number] - times[0])
        seconds = frames / float(rate)
        if sound and fault == "mute":
            writer.write_samples(silence(seconds, AUDIO_RATE))
        elif sound:
            writer.copy_sound(until=seconds if fault == "short" else None)
    return seconds


def _pictures(seen: Iterator[Planes], frames: int, fault: str, rate: Fraction) -> Iterator[Planes]:
    fading = max(round(FADE_SECONDS * rate), 1)
    first: Planes | None = None
    for number, planes in zip(range(frames), seen, strict=False):
        first = first or planes
        if fault == "black":
            yield _dimmed(planes, 0.0)
        elif fault == "frozen":
            yield first
        elif fault == "fade-out":
            # The last frame is black, and the one before the fade is as bright as ever.
            yield _dimmed(planes, min((frames - 1 - number) / fading, 1.0))
        else:
            yield planes


def _dimmed(planes: Planes, share: float) -> Planes:
    if share == 1:
        return planes
    dimmed = planes.copy()
    for plane, nothing in ((dimmed.y, BLACK), (dimmed.u, GREY), (dimmed.v, GREY)):
        plane[:] = np.rint(nothing + (plane.astype(np.float32) - nothing) * share).astype(np.uint8)
    return dimmed


def _damage(path: Path) -> float:
    """Overwrites coded pictures past the middle with noise; the index and the units' lengths stay as they were."""
    with av.open(str(path), format="mov") as clip:
        video = clip.streams.video[0]
        shown = float(video.frames / Fraction(video.average_rate or 24))
        entries = [(entry.pos, entry.size) for entry in video.index_entries]
    data = bytearray(path.read_bytes())
    for position, size in entries[len(entries) // 2 : len(entries) * 5 // 6 + 1]:
        unit = position
        while unit < position + size:
            end = unit + 4 + int.from_bytes(data[unit : unit + 4], "big")
            # Four bytes of length, and two that say what it is: with those whole, only a decoder notices.
            data[unit + 6 : end] = _noise(unit, max(end - unit - 6, 0))
            unit = end
    path.write_bytes(data)
    return shown


def _noise(seed: int, length: int) -> bytes:
    return hashlib.shake_128(str(seed).encode()).digest(length)
