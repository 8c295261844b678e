"""From a shot to the body that would be sent for it, but for its inputs' URLs."""

from __future__ import annotations

import re
from typing import Any

from prefect_kling.storyboard.document import Defaults, Shot
from prefect_kling.storyboard.inputs import references
from prefect_kling.storyboard.places import did_you_mean

__all__ = ["body_of"]

_NAME = re.compile(r"\{([^\W\d]\w*)\}")

Found = list[tuple[tuple[str, ...], str]]


def body_of(shot: Shot, defaults: Defaults, look: str) -> tuple[dict[str, Any], Found]:
    """The body for a shot, with empty URLs, and what is wrong with its prompts: the field, and a sentence.

    Defaults go only where the gateway takes the field: a base edit has its input's length and shape, a first frame
    brings its shape, and no sound goes with a video (gateway.md, rules 2 and 3, "Warn, but send").
    """
    found: Found = []
    body: dict[str, Any] = {"model": shot.model or defaults.model, "mode": shot.mode or defaults.mode}
    video = shot.base or shot.feature
    tokens = _tokens(shot)

    def worded(text: str, path: tuple[str, ...]) -> str:
        return _with_look(_with_tokens(text, tokens, path, found), look)

    if shot.prompt:
        body["prompt"] = worded(shot.prompt, ("prompt",))
    if shot.base:
        body |= {"duration": str(shot.duration)} if shot.duration else {}
        body |= {"aspect_ratio": shot.aspect_ratio} if shot.aspect_ratio else {}
    else:
        body["duration"] = str(_seconds(shot, defaults))
        shape = shot.aspect_ratio or ("" if shot.continues or shot.first_frame else defaults.aspect_ratio)
        body |= {"aspect_ratio": shape} if shape else {}
    sound = shot.sound or ("" if video else defaults.sound)
    if sound == "on":
        body["sound"] = "on"
    _add_inputs(body, shot, defaults)
    if shot.multi_shot == "intelligence":
        body |= {"multi_shot": True, "shot_type": "intelligence"}
    elif shot.multi_shot:
        body |= {"multi_shot": True, "shot_type": "customize"}
        body["multi_prompt"] = [
            {"index": n, "prompt": worded(part.prompt, ("multi_shot",)), "duration": str(part.duration)}
            for n, part in enumerate(shot.multi_shot, 1)
        ]
    return body, found


def _seconds(shot: Shot, defaults: Defaults) -> int:
    parts = sum(part.duration for part in shot.multi_shot) if isinstance(shot.multi_shot, list) else 0
    return shot.duration or parts or defaults.duration


def _add_inputs(body: dict[str, Any], shot: Shot, defaults: Defaults) -> None:
    for name in ("base", "feature"):
        if getattr(shot, name):
            keep = shot.keep_original_sound or defaults.keep_original_sound
            body["video_list"] = [{"video_url": "", "refer_type": name, "keep_original_sound": keep}]
    types = {"continues": "first_frame", "first_frame": "first_frame", "end_frame": "end_frame"}
    images: list[dict[str, str]] = []
    for reference in references(shot):
        if reference.is_image:
            kind = types.get(reference.field[0])
            images.append({"image_url": ""} | ({"type": kind} if kind else {}))
    if images:
        body["image_list"] = images
    ids = shot.elements.values() if isinstance(shot.elements, dict) else shot.elements
    if ids:
        body["element_list"] = [{"element_id": element} for element in ids]


def _tokens(shot: Shot) -> dict[str, str]:
    """What a name in braces stands for: inputs are named by position, from 1 (gateway.md, "What the parts mean")."""
    tokens = {name: "<<<video_1>>>" for name in ("base", "feature") if getattr(shot, name)}
    images = [reference for reference in references(shot) if reference.is_image]
    tokens |= {r.field[1]: f"<<<image_{n}>>>" for n, r in enumerate(images, 1) if r.field[0] == "images"}
    if isinstance(shot.elements, dict):
        tokens |= {name: f"<<<element_{n}>>>" for n, name in enumerate(shot.elements, 1)}
    return tokens


def _with_tokens(text: str, tokens: dict[str, str], path: tuple[str, ...], found: Found) -> str:
    def token(match: re.Match[str]) -> str:
        name = match[1]
        if name not in tokens:
            found.append((path, f"{{{name}}} names no image or element of this shot{did_you_mean(name, tokens)}"))
        return tokens.get(name, match[0])

    return _NAME.sub(token, text)


def _with_look(text: str, look: str) -> str:
    return f"{text}, {look}" if look and text.strip() else text
