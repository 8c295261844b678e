"""What the film's picture will be, and how a clip of another shape is put into it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
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


def covering(size: tuple[int, int], shown: tuple[int, int], target: Target) -> tuple[tuple[int, int], tuple[int, int]]:
    """How a picture covers the film's: of what size its middle is cut out, and what that is then scaled to.

    What is cut out has a few pixels more than are seen, so that it is never scaled to much more than the film: whole, a
    clip of 4000x2 pixels would be more than a million wide.

    Args:
        size: of the picture in its own pixels, turned as it is shown.
        shown: the same in square pixels.
        target: the film's.
    """
    scale = max(Fraction(target.width, shown[0]), Fraction(target.height, shown[1]))
    middle, scaled = [], []
    for own, square, wanted in zip(size, shown, (target.width, target.height), strict=True):
        stretched = square * scale / own
        middle.append(min(own, ceil(wanted / stretched / 2) * 2 + 4))
        scaled.append(max(round(middle[-1] * stretched / 2) * 2, wanted))
    return (middle[0], middle[1]), (scaled[0], scaled[1])


def majority(values: Iterable[T]) -> T:
    """The most frequent value; the earliest among equally frequent ones."""
    # most_common sorts stably, and a Counter keeps the order of first appearance.
    return Counter(values).most_common(1)[0][0]
