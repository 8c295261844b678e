"""What a film is made of and how: its clips in order, their transitions, sound, words and edges. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.transitions import HARD, Transition

__all__ = ["Captions", "Codec", "Cut", "CutClip", "Fit", "Music"]

Fit = Literal["pad", "crop", "stretch"]
"""How a picture of another shape fills the film's: bars around it, its middle, or all of it out of shape."""

Captions = Literal["soft", "burn", "none"]
Codec = Literal["as-is", "h264"]


@dataclass(frozen=True)
class Music:
    """A bed under the whole film.

    Attributes:
        path: a sound file, or any file with sound in it.
        gain: dB that it is turned up by, negative for down, before the film's loudness is set.
        loop: whether it starts again where it is shorter than the film.
        fade: seconds over which it comes and goes.
        ducking: whether it steps back while clips or narration are heard.
    """

    path: Path
    gain: float = -12.0
    loop: bool = True
    fade: Fraction = Fraction(2)
    ducking: bool = True


@dataclass(frozen=True)
class CutClip:
    """One clip of the film.

    Attributes:
        path: an MP4.
        title: of its chapter.
        facts: what a probe found, where there was one already.
        trim: seconds of the clip, as a player shows it, that the film begins and ends with; None for its own ends.
        transition: how the clip before it in the film goes over into this one.
        repeats: whether its first frame shows once more the last one of the clip before, and is left out.
        caption: words to be read while it is seen.
        narration: a sound file that begins with it and may go on over the clips behind it.
    """

    path: Path
    title: str
    facts: MediaFacts | None = None
    trim: tuple[Fraction, Fraction | None] | None = None
    transition: Transition = HARD
    repeats: bool = False
    caption: str = ""
    narration: Path | None = None


@dataclass(frozen=True)
class Cut:
    """How clips become a film.

    Attributes:
        transition: from the title card into the first clip, and from the last one into the end card.
        fade_in, fade_out: seconds from and to black and silence, at the film's ends.
        size: width and height of the film in pixels, both even; None for what most clips have.
        fit: what is done with a clip of another shape.
        codec: `as-is` keeps the clips' coding where it can; `h264` encodes HEVC anew.
        loudness: integrated loudness to reach in LUFS (EBU R 128); None leaves the level as it is.
        sound: whether the clips' own sound is heard.
        music: a bed under the film.
        captions: `soft` are a track that players show when asked, and files beside the film; `burn` are in the picture.
        title, end_card: words on a card before the first and after the last clip; empty for none.
        card_seconds: how long a card is seen.
        font: a TrueType or OpenType file for words in the picture; None for Roboto (Latin, Greek and Cyrillic letters).
    """

    transition: Transition = HARD
    fade_in: Fraction = Fraction(0)
    fade_out: Fraction = Fraction(0)
    size: tuple[int, int] | None = None
    fit: Fit = "pad"
    codec: Codec = "as-is"
    loudness: float | None = -16.0
    sound: bool = True
    music: Music | None = None
    captions: Captions = "soft"
    title: str = ""
    end_card: str = ""
    card_seconds: Fraction = Fraction(3)
    font: Path | None = None
