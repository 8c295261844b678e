"""What a shot's clips are held against, as numbers, and the name under which the ledger remembers the verdict."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.gateway.limits import CLIP_SIZES
from prefect_kling.media.checks import Wanted
from prefect_kling.storyboard.plan import PlannedShot
from prefect_kling.storyboard.reader import Document

__all__ = ["Look", "import_checks", "imported", "look_of"]


@dataclass(frozen=True)
class Look:
    """What is looked at in a clip.

    Attributes:
        wanted: what it has to be.
        function: the import path of the user's own check, or empty.
    """

    wanted: Wanted
    function: str = ""

    @property
    def nothing(self) -> bool:
        """Whether every clip passes without a look."""
        return not self.function and self.wanted == Wanted()

    @cached_property
    def spec(self) -> str:
        """A digest of all of it. A changed function, or another length, is another check with another verdict.

        Read once, so that a function that is being edited does not get a verdict under a text that did not give it.
        """
        said = {"wanted": asdict(self.wanted), "function": self.function, "source": _source_of(self.function)}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def look_of(shot: PlannedShot, input_seconds: float | None) -> Look:
    """What to look at in a shot's clips.

    Length and size are held against what is known: an edit is as long as its input, and the size of a clip that a first
    frame or a base video shapes is nobody's promise (gateway.md, "Output sizes").

    Args:
        shot: of the plan.
        input_seconds: how long the base video is, where there is one and that is known.
    """
    check, request = shot.check, shot.request
    if check.off:
        return Look(Wanted())
    seconds = request.seconds if request.base_video is None else input_seconds
    shaped = request.base_video is not None or any(image.type for image in request.image_list or ())
    size = None if shaped or request.aspect_ratio is None else CLIP_SIZES[request.aspect_ratio, request.mode]
    wanted = Wanted(
        seconds=float(seconds) if check.length and seconds is not None else None,
        size=size if check.size else None,
        frames=check.frames,
        decodes=check.decodes,
        black=check.black or None,
        frozen=check.frozen or None,
        sound=check.sound and request.sound == "on",
    )
    return Look(wanted, check.function)


def import_checks(document: Document, shots: Iterable[PlannedShot]) -> None:
    """Makes sure, before anything is bought, that every check of the user's own is there.

    Raises:
        StoryboardError: one cannot be imported, or the document may not name any: one that was typed in or came from
            elsewhere must not choose what code a worker runs.
    """
    functions = dict.fromkeys(shot.check.function for shot in shots if shot.check.function and not shot.check.off)
    for name in functions:
        if document.root is None or "://" in document.root:
            raise StoryboardError(
                f"{document.source}: check.function names {name}, which only a document that is a file on this machine "
                "may do"
            )
        imported(name)


def imported(name: str) -> Callable[..., Any]:
    """The function that an import path `package.module:function` names.

    Raises:
        StoryboardError: there is none.
    """
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # as `python -m` would; a command's own folder is where it is installed
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # whatever its module does when it is imported
        raise StoryboardError(f"check.function: {name} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise StoryboardError(f"check.function: {name} is no function")
    function: Callable[..., Any] = found
    return function


def _source_of(function: str) -> str:
    if not function:
        return ""
    try:
        return inspect.getsource(imported(function))
    except (OSError, TypeError):
        return ""  # written in C, say; its name has to do
