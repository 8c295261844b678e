"""The rules across fields of a request, numbered as in gateway.md ("Rules across fields", "Warn, but send").

Pure: each rule is a function from a request to what breaks it. Rules about a single field's values are in the models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect_kling.gateway.requests import OmniVideoRequest

__all__ = ["O1", "SECONDS", "V3", "Broken", "broken", "warnings"]

SECONDS = {"kling-video-o1": (3, 10), "kling-v3-omni": (3, 15)}
O1, V3 = "kling-video-o1", "kling-v3-omni"
_TOKEN = re.compile(r"<<<(image|element|video)_(\d+)>>>")


@dataclass(frozen=True)
class Broken:
    """A rule that a request breaks: the field to change, the rule's number (or the table row) and a sentence."""

    field: str
    rule: str
    message: str


def broken(request: OmniVideoRequest) -> Iterator[Broken]:
    """Every rule that `request` breaks, in gateway.md's order."""
    for rule in _RULES:
        yield from rule(request)


def _duration(r: OmniVideoRequest) -> Iterator[Broken]:
    least, most = SECONDS[r.model]
    if r.duration is not None and not least <= int(r.duration) <= most:
        yield Broken("duration", "duration", f"{r.model} takes '{least}' to '{most}', not '{r.duration}'")


def _something_to_show(r: OmniVideoRequest) -> Iterator[Broken]:
    scripted = r.multi_shot and r.shot_type == "customize" and r.multi_prompt
    if not ((r.prompt or "").strip() or r.image_list or r.video_list or scripted):
        yield Broken("prompt", "1", "a prompt, an image or a video is needed; elements alone do not count")


def _aspect_ratio(r: OmniVideoRequest) -> Iterator[Broken]:
    if r.aspect_ratio is None and not r.video_list and r.image("first_frame") is None:
        yield Broken("aspect_ratio", "2", "needed unless there is a first_frame image or a base video")


def _sound(r: OmniVideoRequest) -> Iterator[Broken]:
    if r.sound == "on" and r.video_list:
        yield Broken("sound", "3", "'on' cannot go with a video")


def _frames_with_base(r: OmniVideoRequest) -> Iterator[Broken]:
    if r.base_video:
        for n, image in enumerate(r.image_list or ()):
            if image.type is not None:
                yield Broken(f"image_list.{n}.type", "4", f"'{image.type}' cannot go with a base video")


def _frames(r: OmniVideoRequest) -> Iterator[Broken]:
    kinds = [image.type for image in r.image_list or ()]
    if "end_frame" in kinds and "first_frame" not in kinds:
        yield Broken("image_list", "5", "an end_frame needs a first_frame")
    for kind in ("first_frame", "end_frame"):
        if kinds.count(kind) > 1:
            yield Broken("image_list", "5", f"at most one {kind}, not {kinds.count(kind)}")


def _counts(r: OmniVideoRequest) -> Iterator[Broken]:
    inputs = len(r.image_list or ()) + len(r.element_list or ())
    most = 4 if r.video_list else 7
    if inputs > most:
        with_video = " beside a video" if r.video_list else ""
        field = "image_list" if r.image_list else "element_list"
        yield Broken(field, "6", f"at most {most} images and elements together{with_video}, not {inputs}")


def _elements_with_frames(r: OmniVideoRequest) -> Iterator[Broken]:
    if r.image("first_frame") is None:
        return
    elements = len(r.element_list or ())
    if elements > 3:
        yield Broken("element_list", "7", f"at most 3 elements beside a first_frame, not {elements}")
    if r.model == O1 and r.image("end_frame") is not None:
        if elements:
            yield Broken("element_list", "7", f"{O1} takes no elements beside a first and an end frame")
        if any(image.type is None for image in r.image_list or ()):
            yield Broken("image_list", "7", f"{O1} takes no further images beside a first and an end frame")


def _multi_shot(r: OmniVideoRequest) -> Iterator[Broken]:
    if not r.multi_shot:
        for field in ("shot_type", "multi_prompt"):
            if getattr(r, field) is not None:
                yield Broken(field, "8", "only with multi_shot: true")
        return
    if r.model != V3:
        yield Broken("multi_shot", "8", f"only {V3} makes several shots, not {r.model}")
    if r.image("end_frame") is not None:
        yield Broken("image_list", "8", "no start and end frames with multi_shot")
    if r.shot_type is None:
        yield Broken("shot_type", "8", "needed with multi_shot: 'customize' or 'intelligence'")
    if r.shot_type == "intelligence" and not (r.prompt or "").strip():
        yield Broken("prompt", "8", "needed with shot_type 'intelligence'")
    if r.shot_type == "customize":
        yield from _script(r)


def _script(r: OmniVideoRequest) -> Iterator[Broken]:
    if not r.multi_prompt:
        yield Broken("multi_prompt", "8", "needed with shot_type 'customize'")
        return
    indexes = [part.index for part in r.multi_prompt]
    if indexes != list(range(1, len(indexes) + 1)):
        yield Broken("multi_prompt", "8", f"indexes have to be 1, 2, 3 … in order, not {indexes}")
    for n, part in enumerate(r.multi_prompt):
        if not part.prompt.strip():
            yield Broken(f"multi_prompt.{n}.prompt", "8", "may not be empty")
    total = sum(int(part.duration) for part in r.multi_prompt)
    if r.seconds is not None and total != r.seconds:
        yield Broken("multi_prompt", "8", f"its durations add up to {total} s, the request's duration is {r.seconds} s")


_RULES: tuple[Callable[[OmniVideoRequest], Iterator[Broken]], ...] = (
    _duration,
    _something_to_show,
    _aspect_ratio,
    _sound,
    _frames_with_base,
    _frames,
    _counts,
    _elements_with_frames,
    _multi_shot,
)


def warnings(request: OmniVideoRequest) -> Iterator[str]:
    """What is sent although sources disagree about it, a sentence each."""
    r = request
    first, media = r.image("first_frame"), bool(r.image_list or r.video_list)
    if r.model == O1 and (not media or first) and not r.video_list and r.seconds not in (5, 10):
        yield f"duration: {O1} may take only '5' and '10' for text or a first frame; '{r.seconds}' is sent"
    if r.model == O1 and r.sound == "on":
        yield f"sound: some sources say that {O1} makes none; 'on' is sent, and priced"
    if media and not (r.prompt or "").strip() and not r.multi_prompt:
        yield "prompt: none, only media; some sources want one"
    if r.base_video:
        for field in ("duration", "aspect_ratio"):
            if getattr(r, field) is not None:
                yield f"{field}: a base edit takes its input's; left out of the request"
    if first and r.aspect_ratio is not None:
        yield "aspect_ratio: the first frame's shape decides; the field may be ignored"
    if r.shot_type == "intelligence" and r.multi_prompt:
        yield "multi_prompt: with shot_type 'intelligence' the gateway may ignore it"
    yield from _tokens(r)


def _tokens(r: OmniVideoRequest) -> Iterator[str]:
    there = {
        "image": len(r.image_list or ()),
        "element": len(r.element_list or ()),
        "video": len(r.video_list or ()),
    }
    texts = [r.prompt or "", *(part.prompt for part in r.multi_prompt or ())]
    for kind, number in dict.fromkeys(m.groups() for text in texts for m in _TOKEN.finditer(text)):
        if not 1 <= int(number) <= there[kind]:
            yield f"prompt: <<<{kind}_{number}>>> names an input that is not there ({there[kind]} of this kind)"
