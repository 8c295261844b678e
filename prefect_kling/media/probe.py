"""What is in these files? All of them are looked at in one confined child process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.untrusted import ProbeLimits, ask

__all__ = ["ProbeLimits", "probe"]


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
    for path, document in zip(different, await ask("probe", different, limits or ProbeLimits()), strict=True):
        try:
            found[path] = MediaFacts.from_json({**document, "path": str(path)})
        except ValueError as error:
            raise InvalidMedia(f"{path} cannot be judged: {error}.") from error
    return [found[path] for path in paths]
