"""From a shot to the body that would be sent for it, but for its inputs' URLs."""

from __future__ import annotations

import re
from typing import Any

from prefect_kling.storyboard.document import Defaults, Shot
from prefect_kling.storyboard.inputs import references
from prefect_kling.storyboard.places import Path, did_you_mean

__all__ = ["Found", "body_of", "names_in"]

_NAME = re.compile(r"\{([^\W\d]\w*)\}")

Found = list[tuple[Path, str]]
"""What is wrong with a shot: the path of a value within it, and a sentence."""


def body_of(shot: Shot, defaults: Defaults, look: str) -> tuple[dict[str, Any], Found]:
    """The body for a shot, with empty URLs, and what is wrong with the words it uses.

    Defaults go only where the gateway takes the field: a base edit has its input's length and shape, a first frame
    brings its shape, and no sound goes with a video (gateway.md, rules 2 and 3, "Warn, but send").
    """
    found: Found = []
    body: dict[str, Any] = {"model": shot.model or defaults.model, "mode": shot.mode or defaults.mode}
    video = shot.base or shot.feature
    tokens = _tokens(shot, found)

    def worded(text: str, path: Path) -> str:
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
    if shot.keep_original_sound and not video:
        found.append((("keep_original_sound",), "only a shot with base or feature has an original sound; remove it"))
    _add_inputs(body, shot, defaults)
    if shot.multi_shot == "intelligence":
        body |= {"multi_shot": True, "shot_type": "intelligence"}
    elif shot.multi_shot:
        body |= {"multi_shot": True, "shot_type": "customize"}
        body["multi_prompt"] = [
            {"index": n + 1, "prompt": worded(part.prompt, ("multi_shot", n, "prompt")), "duration": str(part.duration)}
            for n, part in enumerate(shot.multi_shot)
        ]
    return body, found


def names_in(text: str) -> list[str]:
    """The names in braces in a text; braces around anything that is no name are only braces."""
    return _NAME.findall(text)


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


def _tokens(shot: Shot, found: Found) -> dict[str, str]:
    """What a name in braces stands for: inputs are named by position, from 1 (gateway.md, "What the parts mean")."""
    tokens = {name: "<<<video_1>>>" for name in ("base", "feature") if getattr(shot, name)}
    images = [reference for reference in references(shot) if reference.is_image]
    named = [(r.field, f"<<<image_{n}>>>") for n, r in enumerate(images, 1) if r.field[0] == "images"]
    if isinstance(shot.elements, dict):
        named += [(("elements", name), f"<<<element_{n}>>>") for n, name in enumerate(shot.elements, 1)]
    for field, token in named:
        name = field[1]
        if name in ("base", "feature"):
            found.append((field, f"{{{name}}} stands for the shot's video; give this another name"))
        elif name in tokens:
            found.append((field, f"an image has the name '{name}' already; give this another one"))
        tokens[name] = token
    return tokens


def _with_tokens(text: str, tokens: dict[str, str], path: Path, found: Found) -> str:
    def token(match: re.Match[str]) -> str:
        name = match[1]
        if name not in tokens:
            hint = did_you_mean(name, tokens) or "; for plain braces put spaces inside"
            found.append((path, f"{{{name}}} names no image, element or video of this shot{hint}"))
        return tokens.get(name, match[0])

    return _NAME.sub(token, text)


def _with_look(text: str, look: str) -> str:
    # A look alone is no prompt: it would hide that there is none.
    return f"{text}, {look}" if look.strip() and text.strip() else text
