"""Words to be read while a shot is seen, as cues on the film's clock and as the two files that players take. Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from prefect_kling.media.linebreaks import broken, columns
from prefect_kling.media.timeline import Timeline

__all__ = ["Cue", "cleaned", "cues_of", "srt", "vtt"]

LINE = 42
"""Letters in a line, as broadcasters have it (BBC, Netflix: 37 to 42)."""

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff\ufffe\uffff]")
# What a player would take for markup: <i>, </font>, {\an8}.
MARKUP = re.compile(r"<(?=[A-Za-z/])|\{(?=\\)")
WORD_JOINER = "\N{WORD JOINER}"


@dataclass(frozen=True)
class Cue:
    """One caption.

    Attributes:
        start, end: seconds of the film.
        text: one or more lines, none of them empty.
    """

    start: Fraction
    end: Fraction
    text: str


def cues_of(timeline: Timeline) -> tuple[Cue, ...]:
    """One cue for each captioned scene, for as long as a viewer calls it this shot; lines of about 42 letters."""
    found = []
    for scene in timeline.scenes:
        text = "\n".join(broken(cleaned(scene.caption), LINE, columns))
        if text:
            start, end = scene.seen
            found.append(Cue(start / timeline.rate, end / timeline.rate, text))
    return tuple(found)


def cleaned(text: str) -> str:
    """A text without empty lines and control characters, each of its lines without blanks around it."""
    lines = (CONTROL.sub(" ", line).strip() for line in text.replace("\t", " ").splitlines())
    return "\n".join(line for line in lines if line)


def srt(cues: Sequence[Cue]) -> str:
    """The cues as SubRip, to be written as UTF-8."""
    blocks = [
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{_plain(cue.text)}\n"
        for number, cue in enumerate(cues, start=1)
    ]
    return "\n".join(blocks)


def vtt(cues: Sequence[Cue]) -> str:
    """The cues as WebVTT (W3C), to be written as UTF-8; what HTML's `<track>` takes."""
    blocks = [
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{html.escape(cleaned(cue.text), quote=False)}\n"
        for cue in cues
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def _plain(text: str) -> str:
    # SubRip has no way to escape: an arrow would begin a cue, so it becomes another arrow, and what looks like markup
    # is taken apart by a letter that nobody sees.
    return MARKUP.sub(lambda found: found[0] + WORD_JOINER, cleaned(text).replace("-->", "→"))


def _clock(seconds: Fraction, point: str) -> str:
    # Down, at both ends: a cue's first frame is not without it, its last one's successor is, and none overlap.
    milliseconds = int(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"
