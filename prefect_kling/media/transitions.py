"""How one shot goes over into the next: the kinds that there are, by the names of ffmpeg's xfade and shorter ones."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

__all__ = ["HARD", "KINDS", "Transition"]

CUT = "cut"
SHORT_NAMES = {"crossfade": "fade", "black": "fadeblack", "white": "fadewhite", "wipe": "wipeleft"}
XFADES = [
    "fade",
    "wipeleft",
    "wiperight",
    "wipeup",
    "wipedown",
    "slideleft",
    "slideright",
    "slideup",
    "slidedown",
    "circlecrop",
    "rectcrop",
    "distance",
    "fadeblack",
    "fadewhite",
    "radial",
    "smoothleft",
    "smoothright",
    "smoothup",
    "smoothdown",
    "circleopen",
    "circleclose",
    "vertopen",
    "vertclose",
    "horzopen",
    "horzclose",
    "dissolve",
    "pixelize",
    "diagtl",
    "diagtr",
    "diagbl",
    "diagbr",
    "hlslice",
    "hrslice",
    "vuslice",
    "vdslice",
    "hblur",
    "fadegrays",
    "wipetl",
    "wipetr",
    "wipebl",
    "wipebr",
    "squeezeh",
    "squeezev",
    "zoomin",
    "fadefast",
    "fadeslow",
    "hlwind",
    "hrwind",
    "vuwind",
    "vdwind",
    "coverleft",
    "coverright",
    "coverup",
    "coverdown",
    "revealleft",
    "revealright",
    "revealup",
    "revealdown",
]
KINDS: tuple[str, ...] = (CUT, *SHORT_NAMES, *XFADES)
"""Every kind of transition; `cut` is none. A test holds them against the ffmpeg that is installed."""

THROUGH = ("fadeblack", "fadewhite", "fadegrays")
"""Kinds in which the first shot is gone before the second comes."""


@dataclass(frozen=True)
class Transition:
    """One boundary.

    Attributes:
        kind: one of `KINDS`.
        seconds: how long both shots are involved; the film is shorter by that much.

    Raises:
        ValueError: there is no such kind, or no such length.
    """

    kind: str = CUT
    seconds: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"there is no transition '{self.kind}'; there are {', '.join(KINDS)}")
        if self.seconds < 0:
            raise ValueError("a transition cannot take less than no time")

    @property
    def xfade(self) -> str | None:
        """What ffmpeg calls it; None for a hard cut."""
        return None if self.kind == CUT or not self.seconds else SHORT_NAMES.get(self.kind, self.kind)

    @property
    def through(self) -> bool:
        """Whether the first shot is gone, and no longer heard, before the second comes."""
        return self.xfade in THROUGH


HARD = Transition()
