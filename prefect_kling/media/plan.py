"""Copy or encode? A pure decision from what the probe found, with its reason in words.

Only clips that are alike in everything a decoder is told once, and each safe to cut in front of, are spliced by
copying. Measured on others: ffmpeg's plain copy exits 0 and gives 695 s of picture for 100 s of clips, and parameter
sets that differ give hundreds of decoder errors; equal parameter sets alone are not enough either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.facts import MediaFacts, VideoFacts

__all__ = ["JoinPlan", "majority", "plan_join"]

T = TypeVar("T", bound=Hashable)

COPIED_CODECS = ("h264", "hevc")
MOST_NAMED = 4


@dataclass(frozen=True)
class JoinPlan:
    """How clips become one film.

    Attributes:
        method: `copy` splices the coded picture as it is; `encode` decodes all of it and encodes it anew.
        reason: why, for a person: which clips differ, and how.
    """

    method: Literal["copy", "encode"]
    reason: str


def plan_join(clips: Sequence[MediaFacts]) -> JoinPlan:
    """Decides how these clips are joined, in this order.

    Raises:
        InvalidMedia: there is no clip.
    """
    if not clips:
        raise InvalidMedia("A film needs at least one clip.")
    usual = majority(clip.copy_key for clip in clips)
    objections = []
    for number, clip in enumerate(clips, 1):
        found = [*_unsafe_alone(clip.video), *_differences(clip.copy_key, usual)]
        if found:
            objections.append(f"clip {number} ({clip.path.name}) {' and '.join(found)}")
    if objections:
        rest = len(objections) - MOST_NAMED
        named = [*objections[:MOST_NAMED], *([f"{rest} more clips differ as well"] if rest > 0 else [])]
        return JoinPlan("encode", f"The picture has to be encoded anew: {'; '.join(named)}.")
    video = clips[0].video
    picture = f"{video.codec} {video.width}x{video.height} at {float(video.frame_rate):g} frames a second"
    alike = "The clip is safe to copy" if len(clips) == 1 else f"All {len(clips)} clips are alike"
    return JoinPlan("copy", f"{alike} ({picture}): the picture is copied without loss.")


def majority(values: Iterable[T]) -> T:
    """The most frequent value; the earliest among equally frequent ones."""
    # most_common sorts stably, and a Counter keeps the order of first appearance.
    return Counter(values).most_common(1)[0][0]


def _differences(key: tuple[tuple[str, str], ...], usual: tuple[tuple[str, str], ...]) -> list[str]:
    return [
        # Two hashes tell a person nothing.
        "was encoded with other settings (its parameter sets differ)"
        if name == "parameter sets"
        else f"has {name} {value} instead of {expected}"
        for (name, value), (_, expected) in zip(key, usual, strict=True)
        if value != expected
    ]


def _unsafe_alone(video: VideoFacts) -> list[str]:
    objections = []
    if video.codec not in COPIED_CODECS:
        objections.append(f"is {video.codec}, which is not spliced")
    if video.packets != video.frames:
        objections.append(f"shows {video.frames} of its {video.packets} coded frames (edit list)")
    if not video.constant:
        objections.append("has unevenly spaced frames")
    if not video.starts_clean:
        objections.append("does not start with a whole picture at time 0")
    if video.parameters_inside:
        objections.append("changes its parameter sets on the way")
    return objections
