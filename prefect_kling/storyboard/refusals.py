"""Why a shot's request is refused, told of the fields that its author wrote rather than of those on the wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from prefect_kling.storyboard.document import Shot
from prefect_kling.storyboard.inputs import references
from prefect_kling.storyboard.places import Path

__all__ = ["refusals"]


def refusals(error: ValidationError, shot: Shot) -> Iterator[tuple[Path, str]]:
    """Each reason in a failed `OmniVideoRequest` as the path of a value within the shot and a sentence.

    Args:
        error: from validating the shot's body.
        shot: which made the body.
    """
    for found in error.errors(include_url=False):
        # Pydantic calls a list too short when all that is in it is wrong, which is told by itself.
        if found["type"] == "too_short" and found["input"]:
            continue
        if found["type"] == "rules":
            for name, rule, message in found["ctx"]["broken"]:
                yield _path(shot, name.split("."), rule), message
        else:
            yield _path(shot, [str(step) for step in found["loc"]], ""), _message(found)


def _message(found: Any) -> str:
    if found["type"] == "string_too_long":
        most = found["ctx"]["max_length"]
        return f"has {len(found['input']):,} characters with the look and inputs' tokens; at most {most:,} are taken"
    return str(found["msg"])


def _path(shot: Shot, wire: list[str], rule: str) -> Path:
    """Where the part of the body at `wire` came from."""
    first, *rest = wire
    if first == "image_list":
        return _image(shot, rest, rule)
    if first == "video_list":
        return ("base",) if shot.base else ("feature",)
    if first == "multi_prompt" and len(rest) == 2:
        return ("multi_shot", int(rest[0]), rest[1])
    own = {"element_list": "elements", "multi_prompt": "multi_shot", "shot_type": "multi_shot"}.get(first, first)
    return (own,)


def _image(shot: Shot, rest: list[str], rule: str) -> Path:
    images = [reference.field for reference in references(shot) if reference.is_image]
    if rest:
        return images[int(rest[0])]
    # Rules about the list as a whole: of frames (5, 8), or of how many there are (6, 7).
    if rule in ("5", "8") and shot.end_frame:
        return ("end_frame",)
    return ("images",) if shot.images else images[0]
