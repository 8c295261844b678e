"""What a cut needs besides clips, tried before anything is bought: its words, its sounds, its file for editors."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Final

from prefect_kling.media.captions import cleaned
from prefect_kling.media.exchange import check_installed
from prefect_kling.media.pcm import decode_track
from prefect_kling.media.words import draw_words
from prefect_kling.storyboard.plan import Plan

__all__ = ["rehearse"]

SHAPES: Final = {"16:9": (1280, 720), "9:16": (720, 1280), "1:1": (960, 960)}
"""Sizes at which words are tried where the cut names none; how they fill the picture depends on its shape alone."""
A_MOMENT = Fraction(1, 10)


async def rehearse(plan: Plan) -> None:
    """Draws the film's words and decodes the beginning of its sounds, into files that are thrown away.

    Raises:
        InvalidMedia: the font lacks letters, or a file is no font or no sound; the text names it.
        StoryboardError: a file for editors is wanted, and what writes it is not installed.
    """
    if plan.film.otio:
        await asyncio.to_thread(check_installed)
    cut, shots = plan.cut, plan.shot_cuts
    words = [("card", cleaned(text)) for text in (cut.title, cut.end_card) if text]
    if cut.captions == "burn":
        words += [("caption", text) for shot in shots if (text := cleaned(shot.caption))]
    sounds = [cut.music.path] if cut.music else []
    sounds += [shot.narration for shot in shots if shot.narration is not None]
    if not words and not sounds:
        return
    with tempfile.TemporaryDirectory(prefix="kling-") as name:
        folder = Path(name)
        images = [{"kind": kind, "text": text, "out": str(folder / f"{n}.png")} for n, (kind, text) in enumerate(words)]
        await draw_words(images, cut.size or _shape(plan), cut.font, folder)
        for sound in dict.fromkeys(sounds):
            await decode_track(sound, Path(tempfile.mkdtemp(dir=folder)), longest=A_MOMENT)


def _shape(plan: Plan) -> tuple[int, int]:
    """The shape of most shots; of a shot that takes its shape from what it is made of, nothing is known."""
    said = Counter(shot.request.aspect_ratio for shot in plan.shots if shot.in_cut and shot.request.aspect_ratio)
    return SHAPES[said.most_common(1)[0][0]] if said else SHAPES["16:9"]
