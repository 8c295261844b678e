"""What is in these files? They are looked at in a confined child process, or two where they are many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.untrusted import ProbeLimits, ask

__all__ = ["ProbeLimits", "probe"]

MANY = 8
"""Clips from which on a second child is worth its start (measured: 0.1 s, and 0.015 s a clip at 720p)."""


async def probe(paths: Sequence[Path], *, limits: ProbeLimits | None = None) -> list[MediaFacts]:
    """Reads every packet of each clip, decodes its first frame, and says what it is.

    Nothing but MOV/MP4 on this disk is opened, whatever a file refers to. Cancelling kills the child.

    Args:
        paths: clips, in any number; a path may come twice.
        limits: what each may cost.

    Returns:
        One `MediaFacts` per path, in their order, each with the path as it was given.

    Raises:
        InvalidMedia: one or more are no usable clips; the text names each and says why.
    """
    different = list(dict.fromkeys(paths))
    if not different:
        return []
    found = {}
    children = 2 if len(different) >= MANY else 1
    documents = await ask("probe", different, limits or ProbeLimits(), children=children)
    for path, document in zip(different, documents, strict=True):
        try:
            found[path] = MediaFacts.from_json({**document, "path": str(path)})
        except ValueError as error:
            raise InvalidMedia(f"{path} cannot be judged: {error}.") from error
    return [found[path] for path in paths]
