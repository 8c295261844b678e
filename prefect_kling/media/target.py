"""What the film's picture will be, and how a clip of another shape is put into it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from prefect_kling.media.cut import Cut
from prefect_kling.media.facts import MediaFacts

__all__ = ["Target", "covering", "evened", "fitted", "majority", "target_of"]

T = TypeVar("T", bound=Hashable)

# What cameras, browsers and generators make; a clip of uneven spacing has a mean rate that is none of these.
USUAL_RATES = [Fraction(r) for r in (24, 25, 30, 48, 50, 60)] + [Fraction(r * 1000, 1001) for r in (24, 30, 60)]


@dataclass(frozen=True)
class Target:
    """What the film's picture will be: pixels (both even) and frames a second."""

    width: int
    height: int
    frame_rate: Fraction


def target_of(clips: Sequence[MediaFacts], cut: Cut) -> Target:
    """The size that the cut names, else the shown size that most clips have, and the frame rate that most have.

    The first one's among equally frequent ones.
    """
    width, height = cut.size or majority(clip.video.shown_size for clip in clips)
    even = [clip.video.frame_rate for clip in clips if clip.video.constant]
    mean = majority(even or [clip.video.frame_rate for clip in clips])
    rate = mean if even else min(USUAL_RATES, key=lambda usual: abs(usual - mean))
    return Target(*evened((width, height)), rate)


def evened(size: tuple[int, int]) -> tuple[int, int]:
    """A size with even sides, as colour is stored for pairs of pixels."""
    return max(size[0] // 2 * 2, 2), max(size[1] // 2 * 2, 2)


def fitted(size: tuple[int, int], target: Target) -> tuple[int, int, int, int]:
    """Width, height, left and top (all even) of a picture scaled to fit into the film's, with bars around it."""
    width, height = size
    scale = min(Fraction(target.width, width), Fraction(target.height, height))
    inner = [
        min(max(round(side * scale / 2) * 2, 2), most)
        for side, most in ((width, target.width), (height, target.height))
    ]
    # Even offsets: colour is stored for pairs of pixels.
    return inner[0], inner[1], (target.width - inner[0]) // 4 * 2, (target.height - inner[1]) // 4 * 2


def covering(size: tuple[int, int], target: Target) -> tuple[int, int, int, int]:
    """Width and height of a picture scaled to cover the film's, left and top of the middle that is seen; all even."""
    width, height = size
    scale = max(Fraction(target.width, width), Fraction(target.height, height))
    outer = [
        max(round(side * scale / 2) * 2, least) for side, least in ((width, target.width), (height, target.height))
    ]
    return outer[0], outer[1], (outer[0] - target.width) // 4 * 2, (outer[1] - target.height) // 4 * 2


def majority(values: Iterable[T]) -> T:
    """The most frequent value; the earliest among equally frequent ones."""
    # most_common sorts stably, and a Counter keeps the order of first appearance.
    return Counter(values).most_common(1)[0][0]
