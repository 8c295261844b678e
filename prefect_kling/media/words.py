"""Words in the picture: title and end cards, and captions that are burnt in, as images for the picture's filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.cancelling import in_thread
from prefect_kling.media.captions import cleaned
from prefect_kling.media.cut import Cut
from prefect_kling.media.lettering import Kind, draw, font_of
from prefect_kling.media.picture import Images
from prefect_kling.media.target import Target
from prefect_kling.media.timeline import Card, Timeline
from prefect_kling.media.untrusted import ProbeLimits, ask

__all__ = ["draw_words", "images_of"]

FONT_LIMITS = ProbeLimits(seconds=300.0, cpu_seconds=300, file_bytes=64 * 1024 * 1024)
NAMED = 20
"""Letters that are missing, as far as they are named."""


async def images_of(timeline: Timeline, cut: Cut, target: Target, folder: Path) -> Images:
    """Draws all the words that the film's picture shows.

    Args:
        timeline: which cards and captions there are.
        cut: whether captions are burnt in, and the font.
        target: the film's size.
        folder: where the images go, as PNGs: cards without, captions with transparency, both as large as the film.

    Raises:
        InvalidMedia: the font is none or lacks letters, or there is no room for the words; the text says which.
        OSError: the folder cannot be written.
    """
    cards, captions = {}, {}
    for number, scene in enumerate(timeline.scenes):
        if isinstance(scene.source, Card):
            cards[number] = cleaned(scene.source.text)
        elif cut.captions == "burn" and cleaned(scene.caption):
            captions[number] = cleaned(scene.caption)
    wanted = [_wanted("card", number, text, folder) for number, text in cards.items()]
    wanted += [_wanted("caption", number, text, folder) for number, text in captions.items()]
    await draw_words(wanted, (target.width, target.height), cut.font, folder)
    return Images(
        {number: _name("card", number, folder) for number in cards},
        {number: _name("caption", number, folder) for number in captions},
    )


async def draw_words(
    wanted: Sequence[Mapping[str, Any]], size: tuple[int, int], font: Path | None, folder: Path
) -> None:
    """Draws images with words; with somebody's font in the confined child, as reading fonts is a way to be attacked.

    Args:
        wanted: see `lettering.draw`.
        size: of all images, in pixels.
        font: a TrueType or OpenType file; None for our own, Roboto.
        folder: which the images' names are in.

    Raises:
        InvalidMedia, OSError: as for `images_of`.
    """
    if not wanted:
        return
    if font is None:
        in_the_way = await in_thread(lambda checkpoint: draw(font_of(None), wanted, size, checkpoint))
    else:
        [found] = await ask("words", [font], FONT_LIMITS, out=folder, size=size, images=list(wanted))
        in_the_way = found["in_the_way"]
    if in_the_way:
        raise InvalidMedia(_why_not(in_the_way, size, font))


def _why_not(in_the_way: Mapping[str, str], size: tuple[int, int], font: Path | None) -> str:
    [(what, text)] = in_the_way.items()
    letters = " ".join(text[:NAMED]) + (f" and {len(text) - NAMED} more" if len(text) > NAMED else "")
    has = f"The font {font}" if font else "The font for words in the picture, unless `font` in the cut names one,"
    if what == "missing":
        another = "another" if font else "a TrueType or OpenType"
        return (
            f"{has} does not have the letters {letters}; name {another} file that has them as `font` in the cut "
            "(captions that are soft need none)"
        )
    if what == "unshaped":
        return (
            f"The letters {letters} depend on those beside them, and what arranges them is not installed: Pillow needs "
            "FriBiDi for it (the system's package is named libfribidi0 or fribidi)"
        )
    return f"There is no room for these words in a picture of {size[0]}x{size[1]}, so make them fewer: {text}"


def _wanted(kind: Kind, number: int, text: str, folder: Path) -> dict[str, str]:
    return {"kind": kind, "text": text, "out": str(_name(kind, number, folder))}


def _name(kind: Kind, number: int, folder: Path) -> Path:
    return folder / f"{kind}{number}.png"
