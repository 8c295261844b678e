"""Where everything lies in the film, counted in its frames. Pure; the picture, the sound and the words all follow it.

Sound follows by `samples`: each boundary is rounded by itself, from the film's start, as rounding lengths would add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.transitions import HARD, Transition

__all__ = ["SAMPLE_RATE", "Card", "Chapter", "Scene", "Timeline", "film_frames", "lay_out", "samples"]

SAMPLE_RATE = 48_000


@dataclass(frozen=True)
class Card:
    """A still with words on it, and how many frames it is seen."""

    text: str
    frames: int


Source: TypeAlias = MediaFacts | Card


@dataclass(frozen=True)
class Chapter:
    """Where a shot lies in the film: its title, and its first frame and the one after its last, in frames."""

    title: str
    start: int
    end: int


@dataclass(frozen=True)
class Scene:
    """A clip's, or a card's, part in the film. All numbers are frames at the film's rate.

    Attributes:
        source: what is shown.
        title: of its chapter; a card has none of its own and belongs to the chapter beside it.
        first: the source's frame that the scene begins with.
        frames: how many of the source's frames are seen, transitions included.
        whole: whether these are all that the source has.
        start: the film's frame at which its first one is, or begins to be, seen.
        before: how many of its frames it shares with the scene before; 0 behind a hard cut.
        after: how many it shares with the scene behind it.
        transition: from the scene before into this one.
        caption: words to be read while it is seen.
        narration: a sound file that begins with it.
    """

    source: Source
    title: str
    first: int
    frames: int
    whole: bool
    start: int
    before: int
    after: int
    transition: Transition
    caption: str
    narration: Path | None

    @property
    def end(self) -> int:
        """The film's frame behind its last one."""
        return self.start + self.frames

    @property
    def seen(self) -> tuple[int, int]:
        """From where to where it is what a viewer calls this shot: transitions count half."""
        return self.start + self.before // 2, self.end - (self.after - self.after // 2)


@dataclass(frozen=True)
class Timeline:
    """The whole film.

    Attributes:
        rate: its frames a second.
        scenes: in its order; each starts where the one before ends, less what they share.
        fade_in, fade_out: frames over which picture and sound come and go.
    """

    rate: Fraction
    scenes: tuple[Scene, ...]
    fade_in: int
    fade_out: int

    @property
    def frames(self) -> int:
        """How many frames the film has."""
        return self.scenes[-1].end

    @property
    def seconds(self) -> Fraction:
        """How long it lasts."""
        return self.frames / self.rate

    @property
    def transitions(self) -> int:
        """How many of its boundaries are more than a hard cut."""
        return sum(1 for scene in self.scenes if scene.before)

    @property
    def chapters(self) -> tuple[Chapter, ...]:
        """One for each clip, and together the whole film: cards belong to the clips beside them."""
        starts = [0, *(scene.seen[0] for scene in self._clips[1:])]
        ends = [*starts[1:], self.frames]
        return tuple(
            Chapter(scene.title, start, end) for scene, start, end in zip(self._clips, starts, ends, strict=True)
        )

    @property
    def _clips(self) -> tuple[Scene, ...]:
        return tuple(scene for scene in self.scenes if isinstance(scene.source, MediaFacts))


def samples(frames: int, rate: Fraction) -> int:
    """The film's sample, 48,000 a second, at the start of a frame."""
    return round(frames * SAMPLE_RATE / rate)


def film_frames(clip: MediaFacts, rate: Fraction) -> int:
    """How many of the film's frames a whole clip takes: all of its own where the rates agree."""
    return clip.video.frames if clip.video.frame_rate == rate else max(round(clip.video.seconds * rate), 1)


def lay_out(clips: Sequence[CutClip], facts: Sequence[MediaFacts], cut: Cut, rate: Fraction) -> Timeline:
    """Places clips and cards one after the other.

    Args:
        clips: what is wanted of each, in the film's order; at least one.
        facts: what each is.
        cut: what is wanted of the film.
        rate: its frames a second.

    Raises:
        InvalidMedia: a trim leaves nothing of a clip, or transitions and fades need more frames than there are.
    """
    scenes = [_scene(clip, found, rate) for clip, found in zip(clips, facts, strict=True)]
    card_frames = max(round(cut.card_seconds * rate), 1)
    if cut.title:
        scenes[0] = replace(
            scenes[0], transition=scenes[0].transition if clips[0].transition != HARD else cut.transition
        )
        scenes.insert(0, _card(Card(cut.title, card_frames), HARD))
    else:
        scenes[0] = replace(scenes[0], transition=HARD)
    if cut.end_card:
        scenes.append(_card(Card(cut.end_card, card_frames), cut.transition))
    placed: list[Scene] = []
    for number, scene in enumerate(scenes):
        before = _shared(scene, rate)
        after = _shared(scenes[number + 1], rate) if number + 1 < len(scenes) else 0
        if before + after >= scene.frames:
            raise InvalidMedia(
                f"{_named(scene)} has {scene.frames} frames in the film, and the transitions around it need "
                f"{before + after + 1}; make transition_length shorter, or cut hard"
            )
        start = placed[-1].end - before if placed else 0
        placed.append(replace(scene, start=start, before=before, after=after))
    timeline = Timeline(rate, tuple(placed), round(cut.fade_in * rate), round(cut.fade_out * rate))
    if timeline.fade_in + timeline.fade_out > timeline.frames:
        raise InvalidMedia(f"The film has {timeline.frames} frames, fewer than fade_in and fade_out together take")
    return timeline


def _scene(clip: CutClip, facts: MediaFacts, rate: Fraction) -> Scene:
    has = film_frames(facts, rate)
    first, last = 0, has
    if clip.trim is not None:
        begin, end = clip.trim
        first = round(begin * rate)
        last = has if end is None else round(end * rate)
        # A frame too many is what rounding makes of a clip's own length.
        if last > has + 1 or first < 0:
            raise InvalidMedia(
                f"{clip.path} is trimmed to {_range(clip.trim)} s, but lasts {float(facts.seconds):g} s only"
            )
        last = min(last, has)
    if clip.repeats:
        first = max(first, 1)
    if first >= last:
        raise InvalidMedia(
            f"Nothing is left of {clip.path}: from its frame {first} up to {last} of {has} there is none"
        )
    return Scene(
        source=facts,
        title=clip.title,
        first=first,
        frames=last - first,
        whole=(first, last) == (0, has),
        start=0,
        before=0,
        after=0,
        transition=clip.transition,
        caption=clip.caption,
        narration=clip.narration,
    )


def _card(card: Card, transition: Transition) -> Scene:
    return Scene(
        source=card,
        title="",
        first=0,
        frames=card.frames,
        whole=True,
        start=0,
        before=0,
        after=0,
        transition=transition,
        caption="",
        narration=None,
    )


def _shared(scene: Scene, rate: Fraction) -> int:
    return max(round(scene.transition.seconds * rate), 1) if scene.transition.xfade else 0


def _named(scene: Scene) -> str:
    return f"The card '{scene.source.text}'" if isinstance(scene.source, Card) else str(scene.source.path)


def _range(trim: tuple[Fraction, Fraction | None]) -> str:
    begin, end = trim
    return f"{float(begin):g} to {'its end' if end is None else format(float(end), 'g')}"
