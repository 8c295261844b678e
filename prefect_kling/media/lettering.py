"""Draws words into images: cards, and captions to be laid over a picture.

Imports Pillow and no more than that, as it also runs in the confined child, where a font is one that nobody has vouched
for. Sizes are in pixels; all of them follow the film's shorter side, so that words look alike on 16:9, 9:16 and 1:1.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from prefect_kling.media.linebreaks import broken

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

__all__ = ["Kind", "Lettering", "draw", "font_of"]

OWN_FONT = ("files", "Roboto-Medium.ttf")

Kind: TypeAlias = Literal["card", "caption"]

LINE_HEIGHT = 1.3
CAPITAL = 0.72  # how high a capital letter is, of the size
NOBODYS = "\U0010ffff"  # never a letter (Unicode 23.7), so it shows what a font draws for letters it does not have
LOOKED_AT = 64  # the size at which letters are compared
# What a font without these may draw instead, and nobody takes for something else.
INSTEAD = str.maketrans({"–": "-", "—": "-", "‐": "-", "‑": "-", "−": "-", "\u00a0": " ", "\u202f": " ", "•": "·"})  # noqa: RUF001 - these very letters


class TooLong(Exception):
    """The words do not fit the picture at a size that can be read; carries them."""


@dataclass(frozen=True)
class _Place:
    """Where words go, as parts: sizes of the shorter side, the rest of width and height."""

    largest: float
    smallest: float
    width: float
    height: float
    margin: float | None  # of the height, below; None: in the middle
    longest: float  # line, in letters' sizes; a longer one is tiring to read
    unbroken: float  # as long as letters are so much of the largest size, lines stay as they were written


CARD = _Place(0.12, 0.035, 0.8, 0.7, None, 99, 0.6)
# Within the part of a picture that every screen shows (EBU R 95: 90 % of the width).
CAPTION = _Place(0.055, 0.03, 0.86, 0.5, 0.07, 23, 1.0)
# On a telephone held upright, buttons and names lie over the lowest part of a film.
CAPTION_UPRIGHT = _Place(0.055, 0.03, 0.86, 0.5, 0.16, 23, 1.0)
LEAST = 7  # pixels: below, letters are dots


@dataclass(frozen=True)
class Lettering:
    """Draws words in one font.

    Attributes:
        at: the font at a size in pixels.
        shaped: whether letters that depend on each other (Arabic, Devanagari, marks) are arranged.
    """

    at: Callable[[float], FreeTypeFont]
    shaped: bool
    _lacking: dict[str, bool] = field(default_factory=dict)

    def missing(self, text: str) -> str:
        """The letters in a text that the font does not have, each once, those aside that have a stand-in."""
        shown = {letter for letter in self._plain(text) if not (letter.isspace() or _unseen(letter))}
        return "".join(sorted(letter for letter in shown if self._lacks(letter)))

    def image(self, kind: Kind, text: str, size: tuple[int, int]) -> Image:
        """A card, white on black, or a caption, see-through but for the words at the bottom.

        Raises:
            TooLong: there is no room for it.
        """
        words = self._plain(text)
        if not self.shaped:
            words = "".join(letter for letter in words if not _unseen(letter))
        if kind == "card":
            return self._card(words, size)
        return self._caption(words, size)

    def label(self, text: str, letters: float, most: int) -> Image:
        """One line as a mask, cut where it is wider than it may be."""
        from PIL import Image, ImageDraw

        words, font = self._plain(text), self.at(letters)
        while len(words) > 1 and font.getlength(words) > most:
            words = words[:-2].rstrip() + "…"
        mask = Image.new("L", (min(max(round(font.getlength(words)), 1), most), round(letters * LINE_HEIGHT)), 0)
        ImageDraw.Draw(mask).text((0, round(letters)), words, 255, font, "ls")
        return mask

    def _card(self, words: str, size: tuple[int, int]) -> Image:
        from PIL import Image

        mask = Image.new("L", size, 0)
        self._write(mask, *self._fitted(words, size, CARD), CARD, stroke=0)
        return mask.convert("RGB")

    def _caption(self, words: str, size: tuple[int, int]) -> Image:
        """White letters with a black outline and a soft shadow: to be read on anything."""
        from PIL import Image, ImageChops, ImageFilter

        place = CAPTION_UPRIGHT if size[1] > size[0] else CAPTION
        lines, letters = self._fitted(words, size, place)
        inner, outer = Image.new("L", size, 0), Image.new("L", size, 0)
        self._write(inner, lines, letters, place, stroke=0)
        self._write(outer, lines, letters, place, stroke=_stroke(letters))
        shadow = outer.filter(ImageFilter.GaussianBlur(letters / 6)).point([level * 7 // 10 for level in range(256)])
        return Image.merge("RGBA", (inner, inner, inner, ImageChops.lighter(outer, shadow)))

    def _write(self, mask: Image, lines: list[str], letters: float, place: _Place, *, stroke: int) -> None:
        from PIL import ImageDraw

        pen, font = ImageDraw.Draw(mask), self.at(letters)
        high = letters * LINE_HEIGHT * len(lines)
        top = (mask.height - high) / 2 if place.margin is None else mask.height * (1 - place.margin) - high
        for number, line in enumerate(lines):
            baseline = top + letters * (LINE_HEIGHT * (number + 0.5) + CAPITAL / 2)
            pen.text((mask.width / 2, round(baseline)), line, 255, font, "ms", stroke_width=stroke)

    def _fitted(self, text: str, size: tuple[int, int], place: _Place) -> tuple[list[str], float]:
        """The lines, and the largest size at which they fit; lines and words are broken only where they have to be."""
        width, height, shorter = size[0] * place.width, size[1] * place.height, min(size)
        largest, smallest = max(shorter * place.largest, LEAST + 2), max(shorter * place.smallest, LEAST)
        width = min(width, place.longest * largest)
        for parts, least in ((text.splitlines(), largest * place.unbroken), (text.split(), smallest), ([], smallest)):
            letters = largest
            while letters >= least:
                measure = self._measure(letters)
                if max(map(measure, parts), default=0) <= width:
                    lines = broken(text, width, measure)
                    if len(lines) * letters * LINE_HEIGHT <= height:
                        return lines, letters
                letters *= 0.92
        raise TooLong(text)

    def _measure(self, letters: float) -> Callable[[str], float]:
        font, edge = self.at(letters), 2 * _stroke(letters)
        return lambda line: font.getlength(line) + edge

    def _plain(self, text: str) -> str:
        composed = unicodedata.normalize("NFC", text)
        return "".join(
            letter.translate(INSTEAD) if letter.translate(INSTEAD) != letter and self._lacks(letter) else letter
            for letter in composed
        )

    def _lacks(self, letter: str) -> bool:
        if letter not in self._lacking:
            drawn = self._drawn(letter)
            # A damaged font gives letters without a line in them.
            self._lacking[letter] = drawn == self._drawn(NOBODYS) or not any(drawn[0])
        return self._lacking[letter]

    def _drawn(self, letter: str) -> tuple[bytes, tuple[int, int], tuple[int, int], float]:
        from PIL import ImageFont

        # Without shaping, which replaces letters and fails at some.
        font = self.at(LOOKED_AT).font_variant(layout_engine=ImageFont.Layout.BASIC)
        mask, offset = font.getmask2(letter)
        return bytes(mask), mask.size, offset, font.getlength(letter)


def font_of(data: bytes | None) -> Lettering:
    """Lettering in a TrueType or OpenType font; None: in Roboto, which has Latin, Greek and Cyrillic letters.

    Raises:
        OSError: these bytes are no font that FreeType reads.
    """
    from PIL import ImageFont, features

    sizes: dict[float, FreeTypeFont] = {}
    data = resources.files("font_roboto").joinpath(*OWN_FONT).read_bytes() if data is None else data
    shaped = bool(features.check("raqm"))
    engine = ImageFont.Layout.RAQM if shaped else ImageFont.Layout.BASIC

    def at(size: float) -> FreeTypeFont:
        if size not in sizes:
            sizes[size] = ImageFont.truetype(BytesIO(data), size, 0, layout_engine=engine)
        return sizes[size]

    at(LOOKED_AT)
    return Lettering(at, shaped)


def draw(
    lettering: Lettering,
    wanted: Sequence[Mapping[str, Any]],
    size: tuple[int, int],
    checkpoint: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Draws images, unless something is in the way of one.

    Args:
        lettering: the font.
        wanted: of each its `kind`, its `text` (clean lines, at least one) and `out`, the PNG's name.
        size: of all images.
        checkpoint: called between images.

    Returns:
        Nothing where all are drawn, else why not: `missing`, letters that the font does not have; `unshaped`, letters
        that need to be arranged by what is not installed; `too_long`, a text for which there is no room.

    Raises:
        OSError: an image cannot be written.
    """
    texts = [image["text"] for image in wanted]
    if missing := lettering.missing("".join(texts)):
        return {"missing": missing}
    if not lettering.shaped and (letters := {letter for text in texts for letter in text if _needs_shaping(letter)}):
        return {"unshaped": "".join(sorted(letters))}
    try:
        for image in wanted:
            checkpoint()
            found = lettering.image(image["kind"], image["text"], size)
            found.save(image["out"], "PNG", compress_level=1)  # read once, and soon
    except TooLong as error:
        return {"too_long": str(error)}
    return {}


def _unseen(letter: str) -> bool:
    """Whether a letter only tells how others are drawn: joiners, directions, variants."""
    return unicodedata.category(letter) == "Cf" or "\ufe00" <= letter <= "\ufe0f"


def _needs_shaping(letter: str) -> bool:
    """Whether a letter's look or place depends on its neighbours, or the line runs from right to left."""
    if _unseen(letter):
        return False
    return unicodedata.bidirectional(letter) in ("R", "AL") or unicodedata.category(letter) in ("Mn", "Mc")


def _stroke(letters: float) -> int:
    return max(round(letters / 12), 1)
