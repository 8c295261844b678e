"""What a shot's fields refer to: another shot's clip or last frame, a file beside the document, or a URL."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urljoin

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.gateway.limits import MAX_IMAGE_BYTES, image_facts, image_refusal
from prefect_kling.storyboard.document import Shot
from prefect_kling.storyboard.places import did_you_mean, short

__all__ = ["Input", "Place", "Reference", "Unusable", "image_problem", "references", "resolved"]

Place = tuple[str | int, ...]
"""Where an input's URL goes in the request's body, such as `("video_list", 0, "video_url")`."""

_WEB = re.compile(r"^https?://", re.IGNORECASE)
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")


class Unusable(Exception):
    """A reference that leads nowhere; its text says why, in words for the document's author."""


@dataclass(frozen=True)
class Reference:
    """One field of a shot that names an input.

    Attributes:
        field: path of the value within the shot, such as `("images", "harbour")`.
        value: as the user wrote it.
        place: where its URL goes in the body.
        of_shot: what is taken where the value is a shot's id; None where it cannot be one.
        only_shot: nothing but a shot's id will do.
    """

    field: tuple[str, ...]
    value: str
    place: Place
    of_shot: Literal["clip", "last-frame"] | None
    only_shot: bool = False

    @property
    def is_image(self) -> bool:
        """Whether it goes where images go."""
        return self.place[0] == "image_list"


@dataclass(frozen=True)
class Input:
    """One input of a planned shot.

    Attributes:
        place: where its URL goes in the body.
        kind: `clip` or `last-frame` of a shot, a `file` to be hosted, or a `url` to be sent as it is.
        source: the shot's id; the file's absolute path or fsspec URL; the URL.
    """

    place: Place
    kind: Literal["clip", "last-frame", "file", "url"]
    source: str


def references(shot: Shot) -> Iterator[Reference]:
    """A shot's inputs in the order in which they stand in the body: the video; first frame, end frame, images."""
    for name in ("base", "feature"):
        value = getattr(shot, name)
        if value:
            yield Reference((name,), value, ("video_list", 0, "video_url"), "clip")
    position = 0
    for name in ("continues", "first_frame", "end_frame"):
        value = getattr(shot, name)
        if value:
            place: Place = ("image_list", position, "image_url")
            yield Reference((name,), value, place, "last-frame", only_shot=name == "continues")
            position += 1
    for name, value in shot.images.items():
        yield Reference(("images", name), value, ("image_list", position, "image_url"), None)
        position += 1


def resolved(reference: Reference, shot_ids: Mapping[str, int], root: str | None) -> Input:
    """What a reference leads to; a shot's id wins over a file of that name.

    Args:
        reference: of some shot.
        shot_ids: every shot's id, and its position.
        root: the document's folder: an absolute path, a URL ending in `/`, or None where it was typed in.

    Raises:
        Unusable: it leads nowhere.
    """
    value = reference.value
    if reference.of_shot is not None and value in shot_ids:
        return Input(reference.place, reference.of_shot, value)
    if reference.only_shot:
        raise Unusable(f"there is no shot '{short(value)}'{did_you_mean(value, shot_ids)}")
    if _WEB.match(value):
        return Input(reference.place, "url", value)
    if _SCHEME.match(value):
        return Input(reference.place, "file", value)
    if root is None:
        raise Unusable(f"'{short(value)}' is no URL, and a typed-in storyboard has no folder to find files in")
    if _WEB.match(root):
        return Input(reference.place, "url", urljoin(root, value))
    if _SCHEME.match(root):
        return Input(reference.place, "file", root + value)
    path = os.path.normpath(Path(root) / value)
    if not Path(path).is_file():
        shots = "" if reference.of_shot is None else f" and no shot of that name{did_you_mean(value, shot_ids)}"
        raise Unusable(f"there is no file '{short(value)}' beside the document{shots}")
    return Input(reference.place, "file", path)


def image_problem(source: str) -> str | None:
    """Why the image at a path or fsspec URL cannot be sent, or None (gateway.md, `image_list[]`)."""
    import fsspec

    try:
        with fsspec.open(source, "rb") as file:
            data = file.read(MAX_IMAGE_BYTES + 1)
        return image_refusal(image_facts(data))
    except (OSError, ImportError, ValueError, InvalidMedia) as error:
        return str(error)
