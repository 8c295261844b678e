"""What a shot's fields refer to: another shot's clip or last frame, a file beside the document, or a URL."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urljoin

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.gateway.limits import MAX_IMAGE_BYTES, image_facts, image_refusal
from prefect_kling.storyboard.document import Shot
from prefect_kling.storyboard.places import did_you_mean, short

__all__ = [
    "Input",
    "Place",
    "Reference",
    "Unusable",
    "image_problem",
    "is_local",
    "is_there",
    "local_file",
    "no_such_shot",
    "references",
    "resolved",
]

Place = tuple[str | int, ...]
"""Where an input's URL goes in the request's body, such as `("video_list", 0, "video_url")`."""

_WEB = re.compile(r"^https?://", re.IGNORECASE)
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Unusable(Exception):
    """A reference that leads nowhere; its text says why, in words for the document's author."""


class _NoSuchShot(Unusable):
    """Looking for what was meant among 2,000 ids takes a while, and is done when somebody reads it."""

    def __init__(self, value: str, shot_ids: Mapping[str, int]) -> None:
        super().__init__(value, shot_ids)
        self._value, self._shot_ids = value, shot_ids

    def __str__(self) -> str:
        return no_such_shot(self._value, self._shot_ids)


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

    @property
    def is_first_frame(self) -> bool:
        """Whether the shot starts on it."""
        return self.field[0] in ("continues", "first_frame")


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

    @property
    def of_shot(self) -> bool:
        """Whether it is taken from another shot."""
        return self.kind in ("clip", "last-frame")


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


def resolved(
    reference: Reference, shot_ids: Mapping[str, int], root: str | None, *, allow_outside: bool = False
) -> Input:
    """What a reference leads to; a shot's id wins over a file of that name. No file is read.

    A document that was typed in or came from elsewhere cannot make the worker read the worker's own files.

    Args:
        reference: of some shot.
        shot_ids: every shot's id, and its position.
        root: the document's folder: an absolute path, a URL ending in `/`, or None where it was typed in.
        allow_outside: files may be outside of that folder. What http(s) URLs name is read by the gateway, not by us,
            and is never outside.

    Raises:
        Unusable: it leads nowhere, or outside where it may not.
    """
    value = reference.value
    if reference.of_shot is not None and value in shot_ids:
        return Input(reference.place, reference.of_shot, value)
    if reference.only_shot:
        raise _NoSuchShot(value, shot_ids)
    if _WEB.match(value):
        return Input(reference.place, "url", value)
    if root is None and _SCHEME.match(value):
        raise Unusable(f"'{short(value)}' is no http(s) URL; a typed-in storyboard can use nothing else")
    if root is not None and not _SCHEME.match(root):
        return Input(reference.place, "file", _near(value, root, allow_outside))
    # Far away a mistyped id would look like a file that only the gateway can miss.
    if reference.of_shot is not None and _ID.fullmatch(value):
        raise _NoSuchShot(value, shot_ids)
    if root is None:
        raise Unusable(f"'{short(value)}' is no http(s) URL, and a typed-in storyboard has no folder to find files in")
    if _WEB.match(root) and not _SCHEME.match(value):
        return Input(reference.place, "url", _joined(root, value))
    return Input(reference.place, "file", _far(value, root, allow_outside))


def local_file(value: str, root: str | None, *, allow_outside: bool = False) -> Path:
    """A file that a document names and that stays on this machine: sound for the film, a font.

    Args:
        value: as the user wrote it.
        root, allow_outside: as for `resolved`.

    Raises:
        Unusable: it is not there, is outside where it may not be, or the document is none on this machine.
    """
    if root is None or _SCHEME.match(root):
        comes = "was typed in" if root is None else f"comes from {root.partition('://')[0]}://"
        raise Unusable(
            f"'{short(value)}' has to be a file beside the document, and this one {comes}; save it as a file on this "
            "machine, with the file beside it"
        )
    if _WEB.match(value):
        raise Unusable(f"'{short(value)}' is a URL; download it, and name the file")
    path = _near(value, root, allow_outside)
    if not is_local(path):
        raise Unusable(f"'{short(value)}' is no file on this machine; copy it there, and name the copy")
    if not is_there(path):
        raise Unusable(f"there is no file '{short(path)}'")
    return Path(path)


def is_there(path: str) -> bool:
    """Whether there is a regular file of that path, or a link to one; a path that can be none is no error."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for a name that is too long


def no_such_shot(value: str, shot_ids: Mapping[str, int]) -> str:
    """That there is no such shot, and which may have been meant."""
    return f"there is no shot '{short(value)}'{did_you_mean(value, shot_ids)}"


def _joined(root: str, value: str) -> str:
    try:
        return urljoin(root, value)
    except ValueError as error:
        raise Unusable(f"'{short(value)}' makes no URL with {root}: {error}") from error


def _near(value: str, root: str, allow_outside: bool) -> str:
    """A reference in a document on this machine: an absolute path, or another file system's URL."""
    scheme = _SCHEME.match(value)
    if scheme is not None and scheme[1].lower() != "file":
        # Some of fsspec's file systems (`local://`, `zip://` on a file) are this machine under another name.
        if allow_outside:
            return value
        raise _outside(value)
    # Hosting and probing want a path where there is one.
    said = value[len(scheme[0]) :] if scheme else os.path.expanduser(value)  # noqa: PTH111 - unknown users are no error
    if scheme is not None and not said.startswith("/"):
        raise Unusable(f"'{short(value)}' is no file's URL; write file:///PATH, or the path alone")
    path = os.path.normpath(Path(root) / said)
    if not allow_outside and _is_outside(path, os.path.normpath(root)):
        raise _outside(value, linked=_within(path, os.path.normpath(root)))
    return path


def _is_outside(path: str, folder: str) -> bool:
    if _within(path, folder) and not _is_linked(path, folder):
        return False
    try:
        # The folder may be a link itself, or be called by another one's name.
        return not _within(os.path.realpath(path, strict=True), os.path.realpath(folder))
    except OSError:
        return not _within(path, folder)  # it is not there, and will be told as missing where it says it is


def _within(path: str, folder: str) -> bool:
    return path.startswith(folder if folder.endswith("/") else f"{folder}/")


def _is_linked(path: str, folder: str) -> bool:
    """Whether a step on the way down from a folder is a link."""
    here = folder
    for step in path[len(folder) :].strip("/").split("/"):
        here = f"{here}/{step}"
        try:
            mode = os.lstat(here).st_mode
        except OSError:
            return False  # nothing is below what is not there
        if stat.S_ISLNK(mode):
            return True
    return False


def _far(value: str, root: str, allow_outside: bool) -> str:
    """A reference in a document that fsspec reads: a URL of the same file system."""
    home, _, place = root.partition("://")
    scheme = _SCHEME.match(value)
    if scheme is not None and scheme[1].lower() != home.lower():
        raise Unusable(f"'{short(value)}' is out of reach for a document that comes from {home}://")
    if "::" in value:  # a file system within another one, which may be any
        raise Unusable(f"'{short(value)}' chains file systems with ::, which is not taken")
    host, _, folder = place.partition("/")
    if scheme is not None:
        other, _, path = value[len(scheme[0]) :].partition("/")
    else:
        other, path = host, folder + value.lstrip("/")
    path = posixpath.normpath(f"/{path}")
    if not allow_outside and not (other == host and _within(path, f"/{folder}")):
        raise _outside(value)
    # Object stores take names literally, so that what was written whole stays as it is.
    return value if scheme is not None else f"{home}://{host}{path}"


def _outside(value: str, *, linked: bool = False) -> Unusable:
    leads = "leads by a link" if linked else "is"
    return Unusable(
        f"'{short(value)}' {leads} outside the document's folder; move it there, or allow it with --allow-outside "
        "(of the flow: allow_outside)"
    )


def is_local(source: str) -> bool:
    """Whether a file's source is a path on this machine."""
    return not _SCHEME.match(source)


def image_problem(source: str) -> str | None:
    """Why the image at a path or fsspec URL cannot be sent, or None (gateway.md, `image_list[]`).

    At most 10 MB are read.
    """
    try:
        data = _image_bytes(source)
        if len(data) > MAX_IMAGE_BYTES:
            return "it has more than 10 MB, which is the most that is taken"
        return image_refusal(image_facts(data))
    except (OSError, ImportError, ValueError, InvalidMedia) as error:
        return str(error) or type(error).__name__


def _image_bytes(source: str) -> bytes:
    if is_local(source):
        with Path(source).open("rb") as file:
            return file.read(MAX_IMAGE_BYTES + 1)
    import fsspec

    try:
        with fsspec.open(source, "rb") as remote:
            return bytes(remote.read(MAX_IMAGE_BYTES + 1))
    except (OSError, ImportError, ValueError):
        raise
    except Exception as error:  # drivers raise what they like
        raise OSError(f"{type(error).__name__}: {error}") from error
