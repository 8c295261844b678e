"""What lies beside a film: subtitles, poster, contact sheet, preview, manifest, and a timeline for editors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from prefect_kling.media.captions import cues_of, srt, vtt
from prefect_kling.media.cut import Cut
from prefect_kling.media.exchange import write_otio
from prefect_kling.media.join import Film
from prefect_kling.media.manifest import ShotRecord, manifest
from prefect_kling.media.stills import stills

__all__ = ["SOMETIMES", "around"]

SOMETIMES = ("srt", "vtt", "otio")
"""What lies beside some films only."""


async def around(
    film: Film,
    cut: Cut,
    shots: Sequence[ShotRecord],
    work: Path,
    *,
    title: str,
    home: Path | None,
    locations: Mapping[Path, str] | None = None,
    poster_at: Fraction | None = None,
    otio: bool = False,
) -> dict[str, Path]:
    """Makes what lies beside a film.

    Args:
        film: as it was joined, with its file where `film.path` says.
        cut: how.
        shots: one for each clip, in the film's order.
        work: an empty folder to make the files in.
        title: of the film.
        home: the folder in which the files will lie; None where that is no local folder.
        locations: where clips and sounds are kept in the end, by the path at which they are now.
        poster_at: the film's second for the poster; None for a frame that is chosen.
        otio: whether to write an OpenTimelineIO file as well.

    Returns:
        Each file, by what its name ends in behind the film's: `poster.jpg`, `sheet.jpg`, `preview.webp`,
        `manifest.json`; `srt` and `vtt` where there are captions; `otio` where it is wanted.

    Raises:
        InvalidMedia: the film cannot be looked at.
        StoryboardError: OpenTimelineIO is not installed.
        OSError: the folder cannot be written.
    """
    made = await stills(film.path, film.timeline, work, poster_at=poster_at)
    files = {"poster.jpg": made.poster, "sheet.jpg": made.sheet, "preview.webp": made.preview}
    document = manifest(film, shots, title=title, folder=home)
    texts = {"manifest.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n"}
    if cues := cues_of(film.timeline) if cut.captions != "none" else ():
        texts |= {"srt": srt(cues), "vtt": vtt(cues)}
    for ending, text in texts.items():
        files[ending] = work / f"film.{ending}"
        # A file's name may be no text at all: what is not is written as JSON writes it.
        files[ending].write_text(text, "utf-8", errors="backslashreplace")
    if otio:
        files["otio"] = work / "film.otio"
        # Importing the library takes a while.
        await asyncio.to_thread(
            write_otio,
            film.timeline,
            cut,
            files["otio"],
            title,
            folder=home,
            locations=locations,
            lengths=film.sound.lengths if film.sound else {},
        )
    return files
