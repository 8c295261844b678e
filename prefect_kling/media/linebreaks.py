"""Breaks words into lines that people like to read: as few as there can be, and about equally long."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable

__all__ = ["broken", "columns"]

WIDE = ("W", "F")  # East Asian Width, Unicode annex 11
# Han, kana and fullwidth forms stand without spaces between words, so a line may end behind any of them; but none
# begins with what closes a sentence.
UNSPACED = r"\u2e80-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
CLOSING = r"\u3001\u3002\u3009\u300b\u300d\u300f\u3011\u30fc\uff01\uff09\uff0c\uff0e\uff1a\uff1b\uff1f"
PIECE = re.compile(rf"[^\S\n]*(?:[{UNSPACED}][{CLOSING}]*|[^\s{UNSPACED}]+[{CLOSING}]*)")


def broken(text: str, width: float, measure: Callable[[str], float]) -> list[str]:
    """The lines of a text; where it has line breaks already, they stay.

    Args:
        text: words, with single line breaks.
        width: how wide a line may be. A word that is wider is broken within.
        measure: how wide a line is, in the same unit.
    """
    return [part for line in text.splitlines() for part in _even(line, width, measure)]


def columns(text: str) -> int:
    """How wide a text is where every letter is equally wide; letters of East Asia count twice, marks on others not."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in WIDE else 1
        for letter in text
    )


def _even(line: str, width: float, measure: Callable[[str], float]) -> list[str]:
    lines = _filled(line, width, measure)
    if len(lines) < 2:
        return lines
    # As narrow as gives no line more: that makes them about equally long.
    low, high = width / len(lines), width
    for _ in range(6):
        middle = (low + high) / 2
        narrower = _filled(line, middle, measure)
        # A word that only the narrower lines break is too high a price.
        if len(narrower) == len(lines) and max(map(measure, _pieces(line)), default=0) <= middle:
            lines, high = narrower, middle
        else:
            low = middle
    return lines


def _filled(line: str, width: float, measure: Callable[[str], float]) -> list[str]:
    lines = [""]
    for piece in _pieces(line):
        if measure((lines[-1] + piece).strip()) <= width or not lines[-1]:
            lines[-1] += piece
        else:
            lines.append(piece)
        while measure(lines[-1].strip()) > width and len(lines[-1].strip()) > 1:
            whole = lines[-1].strip()
            fits = _beginning(whole, width, measure)
            lines[-1:] = [whole[:fits], whole[fits:]]
    return [found for found in (line.strip() for line in lines) if found]


def _beginning(word: str, width: float, measure: Callable[[str], float]) -> int:
    """How many letters of a word that does not fit do; one always."""
    return bisect_right(range(2, len(word)), width, key=lambda letters: measure(word[:letters])) + 1


def _pieces(line: str) -> list[str]:
    return PIECE.findall(line)
