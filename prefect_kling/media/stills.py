"""Pictures of a finished film: a poster, a contact sheet of its shots, and a preview that moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.captions import cleaned
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.timeline import Scene, Timeline
from prefect_kling.media.untrusted import ProbeLimits, ask

__all__ = ["Stills", "stills", "wanted_frames"]

MOST_CELLS = 60
MOST_MOVING = 24
"""Shots in the preview; more would be seen for less than half a second each."""
PREVIEW_RATE = 8
PREVIEW_SECONDS = 12
SHOT_SECONDS = 3
"""The longest that one shot is seen in the preview."""

FILM_LIMITS = ProbeLimits(
    # A film of ours, not a clip of somebody's: as long as it is.
    seconds=300.0,
    cpu_seconds=300,
    memory=1536 * 1024 * 1024,
    file_bytes=1 << 40,
    duration=24 * 3600,
    packets=100_000_000,
)


@dataclass(frozen=True)
class Stills:
    """Pictures of a film.

    Attributes:
        poster: a JPEG as large as the film.
        sheet: a JPEG under 1 MB with a cell for each shot, its name and its seconds. Of more than 60 shots it shows 60
            that are evenly chosen, and says so.
        preview: an animated WebP under 1 MB, of at most 12 seconds, that plays for ever.
    """

    poster: Path
    sheet: Path
    preview: Path


async def stills(film: Path, timeline: Timeline, folder: Path, *, poster_at: Fraction | None = None) -> Stills:
    """Makes a film's pictures, in a confined child, from a part of its frames only.

    Args:
        film: the file.
        timeline: where everything lies in it.
        folder: where they go, as `poster.jpg`, `sheet.jpg` and `preview.webp`.
        poster_at: the film's second for the poster; None for the first shot's frame on the sheet that is not dark.

    Raises:
        InvalidMedia: the film cannot be decoded, or ends before the poster.
        OSError: the folder cannot be written.
    """
    wanted = wanted_frames(timeline, poster_at)
    await ask("stills", [film], FILM_LIMITS, out=folder, wanted=wanted)
    return Stills(folder / "poster.jpg", folder / "sheet.jpg", folder / "preview.webp")


def wanted_frames(timeline: Timeline, poster_at: Fraction | None) -> dict[str, Any]:
    """Which of the film's frames are looked at; see confined/stills.py for the form. Pure.

    Raises:
        InvalidMedia: there is no such second for the poster.
    """
    poster = None if poster_at is None else math.floor(poster_at * timeline.rate)
    if poster is not None and not 0 <= poster < timeline.frames:
        raise InvalidMedia(
            f"There is no poster at {float(poster_at or 0):g} s of a film that lasts {float(timeline.seconds):g} s"
        )
    scenes = [scene for scene in timeline.scenes if isinstance(scene.source, MediaFacts)]
    numbers = _spread(len(scenes), MOST_CELLS)
    moving = {numbers[n] for n in _spread(len(numbers), MOST_MOVING)}
    each = min(Fraction(PREVIEW_SECONDS, len(moving)), Fraction(SHOT_SECONDS))
    shots = []
    for number in numbers:
        scene = scenes[number]
        first, last = _own(scene, timeline)
        # A quarter in: the shot is under way, and little has to be decoded to get there from its keyframe.
        cell = first + (last - first) // 4
        shots.append(
            {
                "label": " ".join(cleaned(scene.title).split()),
                "number": number + 1,
                "seconds": float((scene.seen[1] - scene.seen[0]) / timeline.rate),
                "cell": cell,
                "preview": _run(first, last, cell, each, timeline.rate) if number in moving else [],
            }
        )
    return {
        "frames": timeline.frames,
        "shots": shots,
        "poster": poster,
        "note": f"{len(numbers)} of {len(scenes)} shots" if len(numbers) < len(scenes) else "",
        "rate": PREVIEW_RATE,
    }


def _spread(count: int, most: int) -> Sequence[int]:
    """So many numbers below `count`, evenly chosen, the first and the last among them."""
    if count <= most:
        return range(count)
    return [round(Fraction(n * (count - 1), most - 1)) for n in range(most)]


def _own(scene: Scene, timeline: Timeline) -> tuple[int, int]:
    """The first and the last of the film's frames that show this scene alone, and no fade where one can be avoided."""
    first, last = scene.start + scene.before, scene.end - scene.after - 1
    lit = max(first, timeline.fade_in), min(last, timeline.frames - timeline.fade_out - 1)
    return lit if lit[0] <= lit[1] else (first, last)


def _run(first: int, last: int, cell: int, seconds: Fraction, rate: Fraction) -> list[int]:
    """Frames of a shot at the preview's rate, as they follow each other in it, up to the cell's if there are enough."""
    step = rate / PREVIEW_RATE
    count = max(min(math.floor(seconds * PREVIEW_RATE), math.floor((last - first) / step) + 1), 1)
    start = max(first, cell - math.floor((count - 1) * step))
    return [start + math.floor(n * step) for n in range(count)]
