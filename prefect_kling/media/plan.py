"""Copy, or encode, and how much of it? A pure decision from the film's timeline, with its reason in words.

Only clips that are alike in everything a decoder is told once, and each safe to cut in front of, are spliced by
copying. Measured on others: ffmpeg's plain copy exits 0 and gives 695 s of picture for 100 s of clips, and parameter
sets that differ give hundreds of decoder errors; equal parameter sets alone are not enough either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from prefect_kling.media.cut import Cut
from prefect_kling.media.facts import MediaFacts, VideoFacts
from prefect_kling.media.picture import Colours
from prefect_kling.media.target import Target, evened, majority
from prefect_kling.media.timeline import Card, Scene, Timeline
from prefect_kling.media.x264 import parameters

__all__ = ["JoinPlan", "plan_join", "usual_of"]

COPIED_CODECS = ("h264", "hevc")
PIXEL_FORMATS = ("yuv420p", "yuv420p10le")
PROGRESSIVE = (0, 1)
FULL_RANGE = 2
MOST_NAMED = 4


@dataclass(frozen=True)
class JoinPlan:
    """How clips become one film.

    Attributes:
        method: `copy` splices the coded picture as it is; `normalise` does so as well, but for odd scenes, which are
            encoded as the others were; `encode` decodes all of it and encodes it anew.
        odd: numbers of the scenes that `normalise` encodes.
        reason: why, for a person: which clips differ, and how.
    """

    method: Literal["copy", "normalise", "encode"]
    odd: tuple[int, ...]
    reason: str


def plan_join(timeline: Timeline, cut: Cut, target: Target) -> JoinPlan:
    """Decides how a film's picture is made.

    Args:
        timeline: the film.
        cut: how it is cut.
        target: what its picture will be.
    """
    clips = [scene.source for scene in timeline.scenes if isinstance(scene.source, MediaFacts)]
    usual = usual_of(clips)
    key = usual.copy_key
    count = sum(clip.copy_key == key for clip in clips)
    odd = {
        number: said
        for number, scene in enumerate(timeline.scenes)
        if (said := _objections(scene, timeline, cut, target, key))
    }
    if not odd and not timeline.transitions:
        return JoinPlan("copy", (), _alike(clips))
    why_not = _why_all(timeline, target, usual, most=2 * count > len(clips), odd=odd)
    named = _named(timeline, odd)
    if why_not is None:
        same = len(timeline.scenes) - len(odd)
        return JoinPlan(
            "normalise", tuple(odd), f"{same} of {len(timeline.scenes)} are copied; encoded like them: {named}."
        )
    return JoinPlan("encode", (), f"The picture has to be encoded anew: {'; '.join(filter(None, (named, why_not)))}.")


def usual_of(clips: Sequence[MediaFacts]) -> MediaFacts:
    """The clip that odd ones are encoded like: one of those that most are coded like."""
    key = majority(clip.copy_key for clip in clips)
    alike = [clip for clip in clips if clip.copy_key == key]
    # One may be coded like most others and yet not be fit to copy, or have lost what x264 left in it: that is not held
    # against the others.
    safe = [clip for clip in alike if not _unsafe_alone(clip.video)] or alike
    return next((clip for clip in safe if parameters(clip.video.encoder) is not None), safe[0])


def _objections(
    scene: Scene, timeline: Timeline, cut: Cut, target: Target, usual: tuple[tuple[str, str], ...]
) -> list[str]:
    """Why a scene's picture cannot be copied."""
    if isinstance(scene.source, Card):
        return ["is made here"]
    video = scene.source.video
    found = [*_unsafe_alone(video), *_differences(scene.source.copy_key, usual)]
    width, height = evened(video.shown_size)
    if not found and (width, height) != (target.width, target.height):
        found.append(f"is {width}x{height}, not {target.width}x{target.height}")
    if cut.codec == "h264" and video.codec != "h264":
        found.append(f"is {video.codec}, not h264")
    if not scene.whole:
        found.append("is shown in part")
    if _fades(scene, timeline):
        found.append("fades")
    if cut.captions == "burn" and scene.caption:
        found.append("has words in its picture")
    return found


def _why_all(
    timeline: Timeline, target: Target, usual: MediaFacts, *, most: bool, odd: Mapping[int, object]
) -> str | None:
    """Why it is not enough to encode the odd scenes like the others; None where it is."""
    video = usual.video
    if timeline.transitions:
        kinds = dict.fromkeys(scene.transition.kind for scene in timeline.scenes if scene.before)
        return f"transitions show two clips at once ({', '.join(kinds)})"
    if not most:
        return "no more than half of the clips are alike"
    if _unsafe_alone(video) or evened(video.shown_size) != (target.width, target.height):
        return "most clips are not as the film has to be"
    if len(odd) == len(timeline.scenes):
        return "no clip is left to be like"
    if video.codec != "h264" or parameters(video.encoder) is None:
        return "how most clips were encoded is not to be found in them"
    square = video.sample_aspect == 1 and not video.rotation and not video.mirrored
    plain = video.field_order in PROGRESSIVE and video.pixel_format in PIXEL_FORMATS and video.colour[0] != FULL_RANGE
    if not square or not plain or not Colours(*video.colour).is_known:
        return "most clips are of a kind that is not made here"
    if any(_fades(scene, timeline) and not _holds_its_fades(scene, timeline) for scene in timeline.scenes):
        return "a fade goes over more than one clip"
    return None


def _fades(scene: Scene, timeline: Timeline) -> bool:
    return scene.start < timeline.fade_in or scene.end > timeline.frames - timeline.fade_out


def _holds_its_fades(scene: Scene, timeline: Timeline) -> bool:
    rises = scene.start >= timeline.fade_in or (scene.start == 0 and scene.end >= timeline.fade_in)
    falls_at = timeline.frames - timeline.fade_out
    return rises and (scene.end <= falls_at or (scene.end == timeline.frames and scene.start <= falls_at))


def _named(timeline: Timeline, odd: Mapping[int, Sequence[str]]) -> str:
    places = _places(timeline)
    said = [f"{places[number]} {' and '.join(found)}" for number, found in odd.items()]
    rest = len(said) - MOST_NAMED
    return "; ".join([*said[:MOST_NAMED], *([f"{rest} more likewise"] if rest > 0 else [])])


def _places(timeline: Timeline) -> dict[int, str]:
    """What to call each scene: a clip by its number and its file's name."""
    places, clips = {}, 0
    for number, scene in enumerate(timeline.scenes):
        if isinstance(scene.source, Card):
            places[number] = "the end card" if number else "the title card"
        else:
            clips += 1
            places[number] = f"clip {clips} ({scene.source.path.name})"
    return places


def _alike(clips: Sequence[MediaFacts]) -> str:
    video = clips[0].video
    picture = f"{video.codec} {video.width}x{video.height} at {float(video.frame_rate):g} frames a second"
    alike = "The clip is safe to copy" if len(clips) == 1 else f"All {len(clips)} clips are alike"
    return f"{alike} ({picture}): the picture is copied without loss."


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
